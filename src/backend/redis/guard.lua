-- Nothing is written where the other nodes do not read, and nothing counts as all where some of it was taken away.
if redis.call('HGET', meta, 'store') ~= ARGV[1] then
  return redis.error_reply('GONE what the nodes share is not there any more')
end
if redis.call('EXISTS', log) == 0 or redis.call('XLEN', log) < redis.call('ZCARD', index) then
  return redis.error_reply('GONE entries of the log were deleted or trimmed by somebody else')
end
