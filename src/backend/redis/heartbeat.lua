-- ARGV: store, node, what it announces.
redis.call('HSET', nodes, ARGV[2], ARGV[3])
return redis.call('HVALS', nodes)
