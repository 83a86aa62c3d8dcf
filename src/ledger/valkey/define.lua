-- Writes definitions of caps, if all are still as they were read; what is used of each is kept.
--
-- KEYS: `caps` of the offer. ARGV, for each cap: its name; what was read, up to the window's end, or nothing where there
-- was none; what it is to be; and whether its window begins anew.

local done = {}
for i = 1, #ARGV, 4 do
  local value, used = redis.call('HGET', KEYS[1], ARGV[i]), '0 0'
  local definition = ''
  if value then
    definition, used = string.match(value, '^(%S+ %S+ %S+ %S+ %S+ %S+) (%S+ %S+)$')
  end
  if definition ~= ARGV[i + 1] then return 'changed' end
  if ARGV[i + 3] == '1' then used = '0 0' end
  done[#done + 1] = ARGV[i]
  done[#done + 1] = ARGV[i + 2] .. ' ' .. used
end
redis.call('HSET', KEYS[1], unpack(done))
redis.call('HINCRBY', KEYS[1], 'turns', 1)
return 'defined'
