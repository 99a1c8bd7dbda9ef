-- ARGV: store, a place in the log, how many entries after it to read at most.
local life, last = head()
return {life, last, redis.call('XREAD', 'COUNT', ARGV[3], 'STREAMS', log, ARGV[2])}
