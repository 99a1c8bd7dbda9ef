-- ARGV: store, the first moment that is kept, how many of each kind to delete at most. Returns how many it deleted.
local changes = redis.call('ZRANGEBYSCORE', expiry, '-inf', '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])
for _, member in ipairs(changes) do
  redis.call('XDEL', log, member:sub(17))
  redis.call('ZREM', index, member)
  redis.call('ZREM', expiry, member)
end
local over = redis.call('ZRANGEBYSCORE', claims_expiry, '-inf', '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])
for _, digest in ipairs(over) do
  redis.call('HDEL', claims, digest)
  redis.call('ZREM', claims_expiry, digest)
end
return {#changes, #over}
