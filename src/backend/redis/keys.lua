local meta, log, index, expiry, claims, claims_expiry, intents, nodes = unpack(KEYS)

-- Which life of the server this is, and the last place in the log that was ever given out.
local function head()
  local life = redis.call('INFO', 'replication'):match('master_replid:(%x+)')
  local stream = redis.call('XINFO', 'STREAM', log)
  for n = 1, #stream, 2 do
    if stream[n] == 'last-generated-id' then return life, stream[n + 1] end
  end
end
