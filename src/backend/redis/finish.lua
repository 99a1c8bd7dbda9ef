-- ARGV: as for a claim.
local held = redis.call('HGET', claims, ARGV[2])
if not held then
  redis.call('ZADD', claims_expiry, ARGV[4], ARGV[2])
end
redis.call('HSET', claims, ARGV[2], '1' .. (held and held:sub(2) or ARGV[3]))
