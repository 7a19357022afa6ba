"""The Lua of `RedisLimitStore`: one exchange of one worker over all its deployments, atomic for each.

State of a deployment, under its key: a hash of scalars (`ac` adaptive concurrency, `th` its threshold, `pk` its peak,
`cut` and `grown` when, `fast` and `slow` latencies, `at` of the last good call, `cool`, `probe`, `block`, `ll:…` and
`lu:…` learned limits and until when, `fl:…` and `fu:…` units others took and until when), `:w` worker → running,
demand, held, seen, and a window each for `:good`, `:failed` and every limit. Times are unix ms. The rules are those of
`memory_limits`.
"""

from typing import Final

from broker.adapters.redis_windows import WINDOW_LIBRARY

HEAD: Final = (
    WINDOW_LIBRARY
    + """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local A = cjson.decode(ARGV[1])
local MINUTE, DAY, WORKER, SLICE = 60000, 86400000, A.worker_ms, A.slice_ms
local LENGTHS = {rpm = MINUTE, tpm = MINUTE, itpm = MINUTE, otpm = MINUTE, rpd = DAY, tpd = DAY}

local function amount(name, u)
  if name == 'rpm' or name == 'rpd' then return u[1] end
  if name == 'itpm' then return u[2] end
  if name == 'otpm' then return u[3] end
  return u[2] + u[3]
end

local function load(key)
  local flat, s = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do s[flat[i]] = tonumber(flat[i + 1]) or flat[i + 1] end
  return s
end

-- The smaller of configured and learned.
local function in_force(s, configured)
  local limits = {}
  for name, limit in pairs(configured) do limits[name] = limit end
  for name in pairs(LENGTHS) do
    if s['ll:' .. name] and s['lu:' .. name] > now then
      limits[name] = math.min(s['ll:' .. name], limits[name] or s['ll:' .. name])
    end
  end
  return limits
end

local function foreign(s, name)
  if s['fl:' .. name] and s['fu:' .. name] > now then return s['fl:' .. name] end
  return 0
end

local function workers_of(key)
  local flat, all = redis.call('HGETALL', key .. ':w'), {}
  for i = 1, #flat, 2 do
    local r, d, h, seen = string.match(flat[i + 1], '^(%S+) (%S+) (%S+) (%S+)$')
    if tonumber(seen) > now - WORKER then
      all[flat[i]] = {tonumber(r), tonumber(d), tonumber(h), tonumber(seen)}
    else
      redis.call('HDEL', key .. ':w', flat[i])
    end
  end
  return all
end

local function told(key, s, limits, workers)
  local used, running = {}, 0
  for name in pairs(limits) do
    w_expire(key .. ':' .. name, now, LENGTHS[name])
    used[name] = w_used(key .. ':' .. name)
  end
  for _, w in pairs(workers) do running = running + w[1] end
  w_expire(key .. ':good', now, MINUTE)
  w_expire(key .. ':failed', now, MINUTE)
  return {
    cooling = s.cool and math.max(0, s.cool - now) or 0,
    half_open = s.cool ~= nil and s.cool <= now,
    blocked = math.max(0, (s.block or 0) - now),
    running = running, used = used, limits = limits,
    concurrency = s.ac and math.max(1, math.floor(s.ac)) or -1,
    latency = (s.fast and s.at and s.at >= now - 600000) and s.fast or -1,
    good = w_used(key .. ':good'), failed = w_used(key .. ':failed'),
  }
end
"""
)

LOOK: Final = (
    HEAD
    + """
local answers = {}
for i, key in ipairs(A.keys) do
  local s = load(key)
  local answer = told(key, s, in_force(s, {}), workers_of(key))
  -- Who looks knows what is configured, and not which windows have counted for it: all of them are told.
  for name, length in pairs(LENGTHS) do
    w_expire(key .. ':' .. name, now, length)
    answer.used[name] = w_used(key .. ':' .. name)
  end
  answers[i] = answer
end
return cjson.encode(answers)
"""
)

_RULES: Final = """
local function measured(s, calls, mean)
  for _ = 1, math.min(calls, 10) do
    s.fast = s.fast and s.fast + 0.2 * (mean - s.fast) or mean
    s.slow = s.slow and s.slow + 0.02 * (mean - s.slow) or mean
  end
end

-- Halved on overload, at most once a second; grown while calls wait for it. As `broker.limits.concurrency` has it.
local function adapt(s, need, running, cap)
  if need.overloaded > 0 then
    if now - (s.cut or -1e15) >= 1000 then
      local level = math.max(1, s.ac or running)
      s.pk = math.max(s.pk or 0, level)
      s.ac = math.max(1, math.floor(level / 2))
      s.th, s.cut, s.grown = level * 0.75, now, now
    end
    return
  end
  if not s.ac then return end
  local filling = s.fast and s.slow and s.fast > 2 * s.slow
  if need.limited and need.good > 0 and not filling then
    if s.ac >= s.th then
      s.ac = s.ac + need.good / s.ac
    elseif now - s.grown >= 1000 then
      s.ac = math.min(s.th, math.max(s.ac + 1, s.ac * 1.25))
      s.grown = now
    end
  end
  local healthy = not need.limited and now - s.cut >= 300000
  if healthy or (cap >= 0 and s.ac >= cap) or s.ac >= 4 * s.pk then s.ac, s.pk = nil, 0 end
end

-- A worker's share of `cap` slots: its demand, or the same level as all who lack; the rest by name.
local function share_of(cap, workers, mine)
  local order = {}
  for name, w in pairs(workers) do order[#order + 1] = {w[2], name} end
  table.sort(order, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)
  local left = cap
  for place, w in ipairs(order) do
    local waiting = #order - place + 1
    local level = math.floor(left / waiting)
    if left % waiting > 0 and w[1] > level then level = level + 1 end
    level = math.min(w[1], level)
    if w[2] == mine then return level end
    left = left - level
  end
  return 0
end
"""

EXCHANGE: Final = (
    HEAD
    + _RULES
    + """
local function learn(key, s, need)
  if not need.learned then return end
  for name, limit in pairs(need.learned.limits) do
    s['ll:' .. name], s['lu:' .. name] = limit, now + 600000
  end
  local limits = in_force(s, need.limits)
  for name, left in pairs(need.learned.left) do
    local reset = need.learned.reset[name]
    if limits[name] and reset then
      w_expire(key .. ':' .. name, now, LENGTHS[name])
      s['fl:' .. name] = math.max(0, limits[name] - left - w_used(key .. ':' .. name))
      s['fu:' .. name] = now + reset
    end
  end
end

local function slots(s, need, workers)
  local cap = need.cap
  if s.ac and (cap < 0 or math.floor(s.ac) < cap) then cap = math.max(1, math.floor(s.ac)) end
  local mine = workers[A.worker]
  if cap < 0 then
    mine[3] = mine[1]
    return -1, false
  end
  local share, others, lacking = share_of(cap, workers, A.worker), 0, false
  for name, w in pairs(workers) do
    if name ~= A.worker then
      others = others + w[3]
      lacking = lacking or w[2] > w[3]
    end
  end
  local granted = math.max(0, math.min(mine[2], share, cap - others))
  mine[3] = math.max(mine[1], granted)
  return granted, lacking and mine[3] > share
end

local function slice(key, s, need, workers, limits)
  if need.want[1] + need.want[2] + need.want[3] == 0 or next(limits) == nil then return nil, 0 end
  local asking, wait, scale, rooms = 0, 0, 1, {}
  for _, w in pairs(workers) do if w[2] > 0 then asking = asking + 1 end end
  asking = math.max(1, asking)
  for name, limit in pairs(limits) do
    local window, reserved = key .. ':' .. name, foreign(s, name)
    w_expire(window, now, LENGTHS[name])
    wait = math.max(wait, w_wait(window, now, LENGTHS[name], limit, amount(name, need.first) + reserved))
    rooms[name] = math.max(0, limit - w_used(window) - reserved)
    local wanted = amount(name, need.want)
    if wanted > 0 then scale = math.min(scale, rooms[name] / asking / wanted) end
  end
  if wait > 0 then return nil, wait end
  local given, fits = {}, true
  for n = 1, 3 do given[n] = math.max(need.first[n], math.floor(need.want[n] * scale)) end
  for name in pairs(limits) do fits = fits and amount(name, given) <= rooms[name] end
  if not fits then given = need.first end
  for name, limit in pairs(limits) do
    w_take(key .. ':' .. name, now + SLICE, LENGTHS[name], math.min(amount(name, given), limit))
  end
  return {given[1], given[2], given[3], now + SLICE}, 0
end

local answers = {}
for i, need in ipairs(A.needs) do
  local key = need.key
  local s, workers = load(key), workers_of(key)
  local before = workers[A.worker]
  workers[A.worker] = {need.running, need.demand, before and before[3] or 0, now}
  for _, settle in ipairs(need.settles) do
    for name, length in pairs(LENGTHS) do
      local difference = amount(name, settle)
      if difference ~= 0 then
        w_settle(key .. ':' .. name, math.floor(settle[4] / (length / STEPS)), difference)
      end
    end
  end
  for name, count in pairs({good = need.good, failed = need.failed}) do
    if count > 0 then w_take(key .. ':' .. name, now, MINUTE, count) end
  end
  if need.good > 0 then
    if (s.at or 0) < now - 600000 then s.fast, s.slow = nil, nil end
    measured(s, need.good, need.latency / need.good)
    s.at = now
  end
  if need.blocked > 0 then s.block = math.max(s.block or 0, now + need.blocked) end
  learn(key, s, need)
  if s.probe and (not workers[s.probe] or (s.probe == A.worker and (need.probe >= 0 or need.running == 0))) then
    s.probe = nil
  end
  if need.probe == 1 and need.cool == 0 then s.cool = nil end
  if need.cool > 0 then s.cool = math.max(s.cool or 0, now + need.cool) end
  local running = 0
  for _, w in pairs(workers) do running = running + w[1] end
  adapt(s, need, running + need.overloaded, need.cap)
  local limits = in_force(s, need.limits)
  local granted, contended = slots(s, need, workers)
  local part, wait = slice(key, s, need, workers, limits)
  local answer = told(key, s, limits, workers)
  answer.slots, answer.contended, answer.wait, answer.slice = granted, contended, wait, part
  answer.probe = answer.half_open and need.demand > 0 and (s.probe == nil or s.probe == A.worker)
  if answer.probe then s.probe = A.worker end
  local flat = {}
  for name, value in pairs(s) do
    flat[#flat + 1] = name
    flat[#flat + 1] = type(value) == 'number' and string.format('%.17g', value) or value
  end
  redis.call('DEL', key)
  if #flat > 0 then
    redis.call('HSET', key, unpack(flat))
    redis.call('PEXPIRE', key, 2 * DAY)
  end
  local w = workers[A.worker]
  redis.call('HSET', key .. ':w', A.worker, string.format('%d %d %d %.0f', w[1], w[2], w[3], now))
  redis.call('PEXPIRE', key .. ':w', DAY)
  answers[i] = answer
end
return cjson.encode(answers)
"""
)

LEAVE: Final = """
local A = cjson.decode(ARGV[1])
for _, key in ipairs(A.keys) do
  redis.call('HDEL', key .. ':w', A.worker)
  if redis.call('HGET', key, 'probe') == A.worker then redis.call('HDEL', key, 'probe') end
end
redis.call('ZREM', A.index, A.worker)
redis.call('DEL', A.said)
"""
