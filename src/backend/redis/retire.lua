-- ARGV: store, node, what it announced.
if redis.call('HGET', nodes, ARGV[2]) == ARGV[3] then
  redis.call('HDEL', nodes, ARGV[2])
end
