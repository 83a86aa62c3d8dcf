-- Writes conversions of one offer down, and counts each that was not known into the offer's caps on conversions.
--
-- KEYS: `caps` of the offer, then one for each conversion. ARGV: for how many seconds a conversion is kept; how many
-- windows follow, of each the cap's name, start and end; then of each conversion its affiliate and what is kept of it.

local caps, windows, overdue, reached, rows = {}, {}, { 'windows', digits(now) }, {}, {}
local next = 3
for _ = 1, tonumber(ARGV[2]) do
  windows[ARGV[next]] = { ARGV[next + 1], ARGV[next + 2] }
  next = next + 3
end

-- The caps that any of these counts into.
local names, is_named = {}, {}
local function name_those_of(affiliate)
  if is_named[affiliate] then return end
  is_named[affiliate] = true
  for _, interval in ipairs({ 'lifetime', 'daily', 'weekly', 'monthly' }) do
    names[#names + 1] = 'conversion:' .. interval .. ':' .. affiliate
  end
end
name_those_of('0')
for i = next, #ARGV, 2 do name_those_of(ARGV[i]) end

for i, value in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do
  if value then
    local name, cap = names[i], read_cap(value)
    local window = windows[name]
    if is_over(cap) then
      if window and begins_now(window[1], window[2]) then
        cap.start, cap.ends, cap.used, cap.wanted_until = tonumber(window[1]), tonumber(window[2]), 0, 0
      else
        overdue[#overdue + 1] = name .. ' ' .. cap.zone
      end
    end
    caps[name] = cap
  end
end
if #overdue > 2 then return overdue end

local counted = {}
for i = 2, #KEYS do
  local affiliate, kept = ARGV[next], ARGV[next + 1]
  next = next + 2
  if redis.call('SET', KEYS[i], kept, 'EX', ARGV[1], 'NX') then
    counted[#counted + 1] = '1'
    for name, cap in pairs(caps) do
      local of = string.match(name, '[^:]*$')
      -- One that was removed goes on counting, so that it is right when it is set again.
      if of == '0' or of == affiliate then count(name, cap, 1, reached) end
    end
  else
    counted[#counted + 1] = '0'
  end
end

for name, cap in pairs(caps) do
  redis.call('HSET', KEYS[1], name, cap_text(cap))
  rows[#rows + 1] = row({}, name, cap)
end
-- Always a write: WAIT waits for the last write of its connection, so that what an earlier call wrote is waited for too.
redis.call('HINCRBY', KEYS[1], 'turns', 1)
return { 'recorded', digits(now), table.concat(counted), rows, reached }
