-- ARGV: store. Returns ids and records in turn.
return redis.call('HGETALL', intents)
