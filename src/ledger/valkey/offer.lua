-- What every script begins with: the clock, and how an offer is kept. All keys of an offer have one hash tag.
--
--   smartlink:{offer:N}:caps   a hash: the cap's name (kind:interval:affiliate, 0 for all of them) →
--                              "amount zone alert_only in_force start end used wanted_until"; and beside the caps
--                              `server`, `learning_until`, `pruned_at` and `turns`
--   smartlink:{offer:N}:held:CAP  a hash: "window holder" → "tokens dead_after"
--   smartlink:{offer:N}:seen   a sorted set: the holders, by when they last asked
--   smartlink:{offer:N}:said   a hash: holder → "sequence\nanswer"
--
-- The `held` of a cap is found by its name, as a request names few of the caps that an offer may have. It has the hash tag of
-- the keys that are declared, so that a cluster lets the script have it.
--
-- A holder is one start of a node, "epoch:name". Windows are in seconds since 1970, every other moment in milliseconds,
-- and `-` is for ever. Numbers are whole and at most 2^53, which Lua's hold without loss.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local MOST = 9007199254740992

local function digits(number)
  return number and string.format('%.0f', number) or '-'
end

local function read_cap(value)
  local amount, zone, alert_only, in_force, start, ends, used, wanted_until =
    string.match(value, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  return {
    amount = tonumber(amount), zone = zone, alert_only = alert_only == '1', in_force = in_force == '1',
    start = tonumber(start), ends = tonumber(ends), used = tonumber(used), wanted_until = tonumber(wanted_until),
  }
end

local function cap_text(cap)
  return digits(cap.amount) .. ' ' .. cap.zone .. ' ' .. (cap.alert_only and '1' or '0') .. ' '
    .. (cap.in_force and '1' or '0') .. ' ' .. digits(cap.start) .. ' ' .. digits(cap.ends) .. ' ' .. digits(cap.used)
    .. ' ' .. digits(cap.wanted_until)
end

-- Field → value. With RESP3 a hash is a map; scripts speak RESP2 unless they say so.
local function read_hash(key)
  local flat, hash = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do hash[flat[i]] = flat[i + 1] end
  return hash
end

local function held_key(caps_key, name)
  return string.sub(caps_key, 1, -5) .. 'held:' .. name
end

-- "window holder" → {window, holder, tokens, dead_after}
local function read_held(caps_key, name)
  local held = {}
  for field, value in pairs(read_hash(held_key(caps_key, name))) do
    local window, holder = string.match(field, '^(%S+) (.*)$')
    local tokens, dead_after = string.match(value, '^(%S+) (%S+)$')
    held[field] = {
      window = tonumber(window), holder = holder, tokens = tonumber(tokens), dead_after = tonumber(dead_after),
    }
  end
  return held
end

local function is_over(cap)
  return cap.ends ~= nil and now >= cap.ends * 1000
end

-- Whether it counts against the window at hand: what is of it, and what could still be spent when it began. That was carried into
-- it, or the window was given another beginning with another zone: until the window ends, nobody knows whether what is untold of it
-- was spent. A window that is over counts as the one that begins with its end.
local function is_alive(holding, cap)
  if is_over(cap) then return holding.dead_after == nil or holding.dead_after > cap.ends * 1000 end
  return holding.window == cap.start or holding.dead_after == nil or holding.dead_after > cap.start * 1000
end

-- What all hold of the cap, and what others than this holder do.
local function leased(held, cap, holder)
  local all, by_others = 0, 0
  for _, holding in pairs(held) do
    if is_alive(holding, cap) then
      all = all + holding.tokens
      if holding.holder ~= holder then by_others = by_others + holding.tokens end
    end
  end
  return all, by_others
end

-- A cap as it stands.
local function row(held, name, cap)
  return name .. ' ' .. cap_text(cap) .. ' ' .. digits((leased(held, cap)))
end

-- Whether the window (of which `-` as the end is for ever) is the one to begin now.
local function begins_now(start, ends)
  start, ends = tonumber(start), tonumber(ends)
  return start ~= nil and start * 1000 <= now and (ends == nil or now < ends * 1000)
end

-- Counts, and notes a cap that only alerts when it reaches its amount.
local function count(name, cap, more, reached)
  local before, bar = cap.used, math.max(cap.amount, 1)
  cap.used = math.min(cap.used + more, MOST)
  if cap.alert_only and cap.in_force and before < bar and bar <= cap.used then
    reached[#reached + 1] = name .. ' ' .. digits(cap.amount) .. ' ' .. digits(cap.used)
  end
end
