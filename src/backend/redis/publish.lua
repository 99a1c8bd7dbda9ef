-- ARGV: store, then for each change: scope key, retain_until, record.
local PART = 3 * 1000
for first = 2, #ARGV, PART do
  local by_key, by_time = {}, {}
  for n = first, math.min(first + PART, #ARGV + 1) - 1, 3 do
    local member = ARGV[n] .. redis.call('XADD', log, '*', 'c', ARGV[n + 2])
    by_key[#by_key + 1] = 0
    by_key[#by_key + 1] = member
    by_time[#by_time + 1] = ARGV[n + 1]
    by_time[#by_time + 1] = member
  end
  redis.call('ZADD', index, unpack(by_key))
  redis.call('ZADD', expiry, unpack(by_time))
end
return {head()}
