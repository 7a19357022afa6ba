"""The callers' Lua: each script handles a whole batch, and reads and writes what its requests share only once.

A scope has the hash KEY (spending: d whole dollars, p the rest in pico-dollars, so that no sum leaves what a double
holds exactly), the windows KEY:rpm and KEY:tpm, and KEY:run, its running requests by when their places return. A
request that was let in is one string: when it was taken (unix ms; the step of every window follows from it) and until
when it has its places.
"""

from typing import Final

from broker.adapters.redis_windows import WINDOW_LIBRARY

_HEAD: Final = (
    WINDOW_LIBRARY
    + """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- ARGV: window ms, place ms, ms a request is remembered, head of the requests' keys, number of scopes, of groups; of
-- each scope (KEYS, in order) rpm, tpm, parallel, budget in dollars and the rest of it ('' where there is none); of
-- each group the numbers of its scopes; then what the script is about.
local length, place, remember, head = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local scopes, groups, states, at = {}, {}, {}, 7
for i = 1, tonumber(ARGV[5]) do
  local key = KEYS[i]
  states[key] = states[key] or {key = key}
  scopes[i] = {state = states[key], rpm = tonumber(ARGV[at]), tpm = tonumber(ARGV[at + 1]),
    parallel = tonumber(ARGV[at + 2]), dollars = tonumber(ARGV[at + 3]), pico = tonumber(ARGV[at + 4])}
  at = at + 5
end
for g = 1, tonumber(ARGV[6]) do
  groups[g] = {}
  for number in string.gmatch(ARGV[at], '%d+') do table.insert(groups[g], scopes[tonumber(number)]) end
  at = at + 1
end
local function keep(token, taken, group)
  redis.call('SET', head .. token, taken .. ' ' .. now + place, 'PX', remember)
  for _, scope in ipairs(group) do
    if scope.parallel then
      redis.call('ZADD', scope.state.key .. ':run', now + place, token)
      scope.state.kept = true
    end
  end
end
local function let_expire()
  for key, state in pairs(states) do
    if state.kept then redis.call('PEXPIRE', key .. ':run', 2 * place) end
  end
end
"""
)

TAKE: Final = (
    _HEAD
    + """
-- Of each claim: token, tokens, group.
local opened = {}
local function window(state, name)
  local found = state[name]
  if not found then
    found = {key = state.key .. ':' .. name, new = 0, waits = {}}
    w_expire(found.key, now, length)
    found.used = w_used(found.key)
    state[name] = found
    table.insert(opened, found)
  end
  return found
end
-- What this batch took is written once, at its end, or before somebody has to wait for it.
local function write(found)
  if found.new > 0 then
    w_take(found.key, now, length, found.new)
    found.new, found.waits = 0, {}
  end
end
local function wait(found, limit, n)
  n = math.min(n, limit)
  if found.used + n <= limit then return 0 end
  write(found)
  local known = found.waits[n - limit]
  if not known then
    known = w_wait(found.key, now, length, limit, n)
    found.waits[n - limit] = known
  end
  return known
end
local function count(found, n)
  found.used, found.new = found.used + n, found.new + n
end
local function refusal(group, tokens)
  for n, scope in ipairs(group) do
    local state = scope.state
    if scope.dollars then
      if not state.d then
        local spent = redis.call('HMGET', state.key, 'd', 'p')
        state.d, state.p = tonumber(spent[1] or 0), tonumber(spent[2] or 0)
      end
      if state.d > scope.dollars or (state.d == scope.dollars and state.p >= scope.pico) then
        return {n, 'budget', -1, state.d, state.p}
      end
    end
  end
  for n, scope in ipairs(group) do
    local state = scope.state
    if scope.parallel then
      if not state.running then
        redis.call('ZREMRANGEBYSCORE', state.key .. ':run', '-inf', now)
        state.running = redis.call('ZCARD', state.key .. ':run')
      end
      if state.running >= scope.parallel then return {n, 'parallel', -1, 0, state.running} end
    end
  end
  local longest, found = 0, false
  for n, scope in ipairs(group) do
    for _, limit in ipairs({'rpm', 'tpm'}) do
      if scope[limit] then
        local w = window(scope.state, limit)
        local ms = wait(w, scope[limit], limit == 'rpm' and 1 or tokens)
        if ms > longest then longest, found = ms, {n, limit, ms, 0, w.used} end
      end
    end
  end
  return found
end
local answers = {}
for i = at, #ARGV, 3 do
  local token, tokens, group = ARGV[i], tonumber(ARGV[i + 1]), groups[tonumber(ARGV[i + 2])]
  local taken, till = string.match(redis.call('GET', head .. token) or '', '^(%S+) (%S+)$')
  local no = false
  if till and tonumber(till) > now then
    keep(token, taken, group)
  else
    -- One that lapsed has left the windows, too: a place lasts as long as they are.
    no = refusal(group, tokens)
    if not no then
      for _, scope in ipairs(group) do
        if scope.rpm then count(window(scope.state, 'rpm'), 1) end
        if scope.tpm then count(window(scope.state, 'tpm'), math.min(tokens, scope.tpm)) end
        if scope.parallel then scope.state.running = scope.state.running + 1 end
      end
      keep(token, now, group)
    end
  end
  answers[#answers + 1] = no or 0
end
for _, found in ipairs(opened) do write(found) end
let_expire()
return answers
"""
)

SETTLE: Final = (
    _HEAD
    + """
-- Of each end: token, group, tokens estimated, tokens really used ('' as estimated), dollars and the rest of the cost,
-- whether everything is given back.
local function correct(state, name, step, difference)
  local steps = state[name] or {}
  steps[step] = (steps[step] or 0) + difference
  state[name] = steps
end
for i = at, #ARGV, 7 do
  local token, tokens, used, refund = ARGV[i], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), ARGV[i + 6] == '1'
  local taken = string.match(redis.call('GET', head .. token) or '', '^%S+')
  if taken then
    redis.call('DEL', head .. token)
    local step = math.floor(tonumber(taken) / (length / STEPS))
    if refund then used = 0 end
    for _, scope in ipairs(groups[tonumber(ARGV[i + 1])]) do
      local state = scope.state
      if scope.parallel then redis.call('ZREM', state.key .. ':run', token) end
      if scope.rpm and refund then correct(state, 'rpm', step, -1) end
      if scope.tpm and used then correct(state, 'tpm', step, used - math.min(tokens, scope.tpm)) end
      state.d = (state.d or 0) + tonumber(ARGV[i + 4])
      state.p = (state.p or 0) + tonumber(ARGV[i + 5])
    end
  end
end
for key, state in pairs(states) do
  for _, name in ipairs({'rpm', 'tpm'}) do
    for step, difference in pairs(state[name] or {}) do
      if difference ~= 0 then w_settle(key .. ':' .. name, step, difference) end
    end
  end
  if (state.d or 0) ~= 0 or (state.p or 0) ~= 0 then
    local carry = math.floor(redis.call('HINCRBY', key, 'p', state.p) / 1000000000000)
    if carry ~= 0 then redis.call('HINCRBY', key, 'p', -carry * 1000000000000) end
    redis.call('HINCRBY', key, 'd', state.d + carry)
  end
end
"""
)

RENEW: Final = (
    _HEAD
    + """
-- Of each claim: token, group.
for i = at, #ARGV, 2 do
  local taken = string.match(redis.call('GET', head .. ARGV[i]) or '', '^%S+')
  if taken then keep(ARGV[i], taken, groups[tonumber(ARGV[i + 1])]) end
end
let_expire()
"""
)

USED: Final = (
    WINDOW_LIBRARY
    + """
-- ARGV: window ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {}
for i, key in ipairs(KEYS) do
  local counts = {}
  for n, name in ipairs({':rpm', ':tpm'}) do
    w_expire(key .. name, now, tonumber(ARGV[1]))
    counts[n] = w_used(key .. name)
  end
  local spent = redis.call('HMGET', key, 'd', 'p')
  answers[i] = {counts[1], counts[2], redis.call('ZCOUNT', key .. ':run', '(' .. now, '+inf'),
    tonumber(spent[1] or 0), tonumber(spent[2] or 0)}
end
return answers
"""
)
