-- ARGV: store, settings.
redis.call('HSETNX', meta, 'settings', ARGV[2])
return redis.call('HGET', meta, 'settings')
