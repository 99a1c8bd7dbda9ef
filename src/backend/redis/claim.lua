-- ARGV: store, digest of the id, digest of the message, until. Returns what was held before: '0' or '1' (finished),
-- then the digest of its message.
local held = redis.call('HGET', claims, ARGV[2])
if not held then
  redis.call('HSET', claims, ARGV[2], '0' .. ARGV[3])
  redis.call('ZADD', claims_expiry, ARGV[4], ARGV[2])
end
return held
