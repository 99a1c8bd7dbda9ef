-- ARGV: store, id.
redis.call('HDEL', intents, ARGV[2])
