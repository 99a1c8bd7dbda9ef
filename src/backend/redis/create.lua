-- ARGV: the id of the store if there is none yet, the version of the layout.
redis.call('HSETNX', meta, 'store', ARGV[1])
redis.call('HSETNX', meta, 'version', ARGV[2])
if redis.call('EXISTS', log) == 0 then
  redis.call('XDEL', log, redis.call('XADD', log, '*', 'c', ''))
end
return {redis.call('HGET', meta, 'store'), redis.call('HGET', meta, 'version')}
