-- ARGV: store, id, record.
redis.call('HSET', intents, ARGV[2], ARGV[3])
