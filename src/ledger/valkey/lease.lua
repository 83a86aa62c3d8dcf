-- What one node tells of one offer's caps is settled, and what it wants is granted.
--
-- KEYS: `caps`, `seen` and `said` of the offer. ARGV: the holder, the sequence, for how many milliseconds a new
-- primary learns; then of each item the cap's name, the window (`-`: the one at hand), spent, returned, wants and holds,
-- and the window that would begin now (`?`: not known), its start and end, and the clicks that needed no grant because the
-- cap only alerted.

local CAPS, SEEN, SAID = KEYS[1], KEYS[2], KEYS[3]
local holder, sequence, learning_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local ITEM = 9

-- How long a node that asked lately counts as one of those that share what is left.
local ACTIVE_MS = 10000
-- How long after somebody asked in vain a cap is wanted.
local WANTED_MS = 5000
-- A lease ends with its window, and the clock is read to the millisecond.
local ROUNDED_MS = 2
local HOUR_MS, DAY_MS = 3600000, 86400000

-- The moment of an earlier answer and that of this one may be of two machines: a replica that became the primary. What
-- was replicated to it may not be all that was granted.
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
if not server then return redis.error_reply('ERR INFO replication names no master_replid') end
local meta = redis.call('HMGET', CAPS, 'server', 'learning_until', 'pruned_at')
local learning_until = tonumber(meta[2] or '0')

-- What is held of each cap that was asked for.
local held = {}
local function holdings_of(name)
  held[name] = held[name] or read_held(CAPS, name)
  return held[name]
end

local function write_held(name, field, holding)
  if holding.tokens > 0 then
    holdings_of(name)[field] = holding
    redis.call('HSET', held_key(CAPS, name), field, digits(holding.tokens) .. ' ' .. digits(holding.dead_after))
  else
    holdings_of(name)[field] = nil
    redis.call('HDEL', held_key(CAPS, name), field)
  end
end

local function names_of_caps()
  local names = {}
  for _, name in ipairs(redis.call('HKEYS', CAPS)) do
    if string.find(name, ':', 1, true) then names[#names + 1] = name end
  end
  return names
end

if meta[1] ~= server then
  if meta[1] then
    learning_until = now + learning_ms
    -- Its clock may be ahead. What was over before counts no more for that.
    for _, name in ipairs(names_of_caps()) do
      for field, holding in pairs(holdings_of(name)) do
        if holding.dead_after and holding.dead_after + learning_ms > now then
          holding.dead_after = holding.dead_after + learning_ms
          write_held(name, field, holding)
        end
      end
    end
  end
  redis.call('HSET', CAPS, 'server', server, 'learning_until', digits(learning_until))
end
local is_learning = now < learning_until and learning_until - now <= learning_ms

-- Always a write: WAIT waits for the last write of its connection, so that what an earlier call wrote is waited for too.
redis.call('HINCRBY', CAPS, 'turns', 1)
redis.call('ZADD', SEEN, now, holder)

local function field_of(window)
  return digits(window) .. ' ' .. holder
end

local function ends_in(cap)
  return cap.ends and math.max(0, cap.ends * 1000 - now)
end

-- Writes down what the node holds of the window at hand. It is about to be told when the window ends, so that it may spend
-- so long, or as long as it was told before, if that answer is the last that reaches it.
local function keep(name, cap, tokens)
  local field = field_of(cap.start)
  local before = holdings_of(name)[field]
  local dead_after = cap.ends and now + math.max(0, ends_in(cap) - ROUNDED_MS)
  if before then
    dead_after = before.dead_after and dead_after and math.max(before.dead_after, dead_after)
  end
  write_held(name, field, { window = cap.start, holder = holder, tokens = tokens, dead_after = dead_after })
end

local function held_of(name, cap, window)
  local holding = holdings_of(name)[field_of(window)]
  return holding and is_alive(holding, cap) and holding.tokens or 0
end

-- ---- an answer that was given is given again ------------------------------------------------------------------------

local said = redis.call('HGET', SAID, holder)
if said then
  local last, answer = string.match(said, '^(%S+)\n(.*)$')
  last = tonumber(last)
  if last > sequence then return { 'stale', digits(last) } end
  if last == sequence then
    local grants, rows = {}, {}
    for name, window, granted in string.gmatch(answer, '(%S+) (%S+) (%S+)\n') do
      local cap = read_cap(redis.call('HGET', CAPS, name))
      local left = 0
      if cap.start == tonumber(window) then left = ends_in(cap) end
      -- The node takes its leases for good as long as it is told now, so that this is written down.
      if left ~= 0 then keep(name, cap, held_of(name, cap, cap.start)) end
      rows[#rows + 1] = row(holdings_of(name), name, cap)
      grants[#grants + 1] = name .. ' ' .. window .. ' ' .. granted .. ' ' .. digits(left)
    end
    return { 'granted', digits(now), grants, rows, {}, {} }
  end
end

-- ---- the windows of all caps that are named --------------------------------------------------------------------------

local caps, overdue = {}, { 'windows', digits(now) }
for i = 4, #ARGV, ITEM do
  local name = ARGV[i]
  local value = not caps[name] and redis.call('HGET', CAPS, name)
  if value then
    local cap = read_cap(value)
    if not is_over(cap) then
      caps[name] = cap
    elseif begins_now(ARGV[i + 6], ARGV[i + 7]) then
      cap.start, cap.ends, cap.used, cap.wanted_until = tonumber(ARGV[i + 6]), tonumber(ARGV[i + 7]), 0, 0
      caps[name] = cap
    else
      overdue[#overdue + 1] = name .. ' ' .. cap.zone
    end
  end
end
if #overdue > 2 then return overdue end

-- ---- once an hour, what nobody will ask about any more is forgotten --------------------------------------------------

local pruned_at = tonumber(meta[3] or '0')
if now - pruned_at > HOUR_MS or now < pruned_at then
  redis.call('HSET', CAPS, 'pruned_at', digits(now))
  local all, holds = {}, {}
  for _, name in ipairs(names_of_caps()) do
    all[name] = caps[name] or read_cap(redis.call('HGET', CAPS, name))
    for field, holding in pairs(holdings_of(name)) do
      if is_alive(holding, all[name]) then
        holds[holding.holder] = holds[holding.holder] or {}
        table.insert(holds[holding.holder], { name, field })
      else
        write_held(name, field, { tokens = 0 })
      end
    end
  end
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', SEEN, '-inf', now - DAY_MS, 'LIMIT', 0, 1000)) do
    local is_lost = tonumber(redis.call('ZSCORE', SEEN, gone)) < now - 40 * DAY_MS
    local is_forgotten = true
    for _, place in ipairs(holds[gone] or {}) do
      local name, field = place[1], place[2]
      local cap, holding = all[name], holdings_of(name)[field]
      if is_lost and not is_over(cap) and (holding.dead_after == nil or holding.dead_after <= now) then
        -- Nobody can know whether it was spent, so it counts as used in the window at hand.
        cap.used = math.min(cap.used + holding.tokens, MOST)
        redis.call('HSET', CAPS, name, cap_text(cap))
        write_held(name, field, { tokens = 0 })
      else
        is_forgotten = false
      end
    end
    -- One that holds nothing has nothing to be told again but a grant that is worth nothing by now.
    if is_forgotten then
      redis.call('ZREM', SEEN, gone)
      redis.call('HDEL', SAID, gone)
    end
  end
end

-- ---- settle and grant ------------------------------------------------------------------------------------------------

local grants, answer, odd, reached = {}, {}, {}, {}
local nodes = redis.call('ZCOUNT', SEEN, now - ACTIVE_MS + 1, '+inf')

-- After a change of the primary, the node knows better than the ledger what it holds: of more, the grant was lost on the
-- way to this server; of less, what was told of it was, and nobody knows whether it was spent.
local function learn(name, cap, window, before)
  local holding = holdings_of(name)[field_of(window)]
  local known = holding and holding.tokens or 0
  if before < known and held_of(name, cap, window) > 0 then
    count(name, cap, known - before, reached)
  end
  if before == known then return end
  if window == cap.start then
    keep(name, cap, before)
  else
    local dead_after = now + (window < cap.start and learning_ms or 40 * DAY_MS)
    if holding then dead_after = holding.dead_after end
    write_held(name, field_of(window), { window = window, holder = holder, tokens = before, dead_after = dead_after })
  end
end

-- Takes what was spent and returned out of what the node holds of that window, and counts it, with what needed no grant.
local function settle(name, cap, window, told_spent, told_returned, counted)
  local before = held_of(name, cap, window)
  local spent = math.min(told_spent, before)
  local returned = math.min(told_returned, before - spent)
  if spent + returned > 0 then
    local left = before - spent - returned
    if window == cap.start then
      keep(name, cap, left)
    else
      local holding = holdings_of(name)[field_of(window)]
      holding.tokens = left
      write_held(name, field_of(window), holding)
    end
  end
  -- What was spent of a window that has ended is counted in the one at hand: it may have been, by a clock that was set.
  -- What was counted without a grant is, whatever the cap does by now: the node may have been cut off since it only alerted.
  count(name, cap, spent + counted, reached)
  -- A lease that was surely over has been forgotten with its window, and is settled late: nothing is wrong with that.
  local is_forgotten = window ~= cap.start and before == 0
  if not is_forgotten and (spent ~= told_spent or returned ~= told_returned) then
    odd[#odd + 1] = name .. ' ' .. digits(window) .. ' ' .. digits(before) .. ' ' .. digits(told_spent) .. ' '
      .. digits(told_returned)
  end
end

-- Leases shrink as the cap fills: no node gets more than half of an even share of what is left (`grant.rs`).
local function share(wants, free)
  if free == 0 then return 0 end
  return math.min(wants, free, math.max(math.floor(free / (math.max(nodes, 1) * 2)), 1))
end

for i = 4, #ARGV, ITEM do
  local name = ARGV[i]
  local cap = caps[name]
  if cap then
    local window = tonumber(ARGV[i + 1]) or cap.start
    local spent, returned, wants = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
    if is_learning then learn(name, cap, window, tonumber(ARGV[i + 5]) + spent + returned) end
    settle(name, cap, window, spent, returned, tonumber(ARGV[i + 8]))

    local all, by_others = leased(holdings_of(name), cap, holder)
    local grants_clicks = cap.in_force and not cap.alert_only and string.sub(name, 1, 6) == 'click:'
    local free = grants_clicks and math.max(0, cap.amount - cap.used - all) or 0
    local granted = is_learning and 0 or share(wants, free)
    keep(name, cap, held_of(name, cap, cap.start) + granted)
    if grants_clicks and not is_learning and wants > free and by_others > 0 then cap.wanted_until = now + WANTED_MS end
    grants[#grants + 1] = name .. ' ' .. digits(cap.start) .. ' ' .. digits(granted) .. ' ' .. digits(ends_in(cap))
    answer[#answer + 1] = name .. ' ' .. digits(cap.start) .. ' ' .. digits(granted) .. '\n'
  end
end

local rows = {}
for name, cap in pairs(caps) do
  redis.call('HSET', CAPS, name, cap_text(cap))
  rows[#rows + 1] = row(holdings_of(name), name, cap)
end
redis.call('HSET', SAID, holder, digits(sequence) .. '\n' .. table.concat(answer))
return { 'granted', digits(now), grants, rows, odd, reached }
