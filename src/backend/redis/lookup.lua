-- ARGV: store, scope keys. Returns places and records in turn.
local found = {}
for n = 2, #ARGV do
  for _, member in ipairs(redis.call('ZRANGEBYLEX', index, '[' .. ARGV[n], '[' .. ARGV[n] .. '\255')) do
    local id = member:sub(17)
    local entry = redis.call('XRANGE', log, id, id)[1]
    if entry then
      found[#found + 1] = id
      found[#found + 1] = entry[2][2]
    end
  end
end
return found
