"""The journal's Lua: each script handles a whole batch, so that no request pays for a round trip of its own.

KEYS[i] is the request's hash; its fields: t token, f fence, h hop, u lease until (unix ms), n calls begun, s state
(absent: leased, d: done, m: moved on), p published, w where its record stands, r request id, c tenant.
"""

from typing import Final

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_OWN: Final = """
-- Whether a lease is still the newest. One the store has forgotten is taken again: nobody can have it meanwhile.
local function own(key, token, fence, hop)
  local found = redis.call('HMGET', key, 't', 'f', 'h', 's')
  if not found[1] then
    redis.call('HSET', key, 't', token, 'f', fence, 'h', hop, 'u', now + lease, 'n', 0, 'w', '', 'r', '', 'c', '')
    redis.call('PEXPIRE', key, marker)
    return true
  end
  return found[1] == token and found[2] == fence and found[3] == hop and not found[4]
end
"""

ACQUIRE: Final = (
    _NOW
    + """
-- ARGV: lease ms, marker ms, head of answer keys; then token, hop, place, request id, tenant, moved key of each claim.
local lease, marker = tonumber(ARGV[1]), ARGV[2]
local answers = {}
for i, key in ipairs(KEYS) do
  local at = 4 + (i - 1) * 6
  local token, hop, place, id, tenant = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local e = redis.call('HMGET', key, 't', 'f', 'h', 'u', 'n', 's', 'p', 'w', 'r', 'c')
  local held = e[3] and tonumber(e[3]) or -1
  local starts, take = 0, hop > held
  if take then
    answers[i] = 0
  elseif e[10] ~= '' and e[10] ~= tenant then
    answers[i] = 'F'
  elseif e[6] == 'd' then
    answers[i] = {'D', e[9], e[8], e[7] and 1 or 0, redis.call('GET', ARGV[3] .. e[9])}
  elseif hop < held or e[6] == 'm' then
    answers[i] = {'M', redis.call('GET', ARGV[at + 5])}
  elseif e[1] == token then
    redis.call('HSET', key, 'u', now + lease)
    answers[i] = {tonumber(e[2]), 0}
  elseif tonumber(e[4]) > now then
    answers[i] = 'P'
  else
    take, starts = true, tonumber(e[5])
  end
  if take then
    -- Larger than any before, also where the store has forgotten them.
    local fence = math.max((tonumber(e[2]) or 0) + 1, time[1] * 1000000 + time[2])
    redis.call('HSET', key, 't', token, 'f', string.format('%.0f', fence), 'h', hop, 'u', now + lease, 'n', starts,
      'w', place, 'r', id, 'c', tenant)
    if e[6] or e[7] then redis.call('HDEL', key, 's', 'p') end
    redis.call('PEXPIRE', key, marker)
    answers[i] = {fence, starts}
  end
end
return answers
"""
)

BEGIN: Final = (
    _NOW
    + """
-- ARGV: lease ms, marker ms; then token, fence, hop of each lease.
local lease, marker = tonumber(ARGV[1]), ARGV[2]
"""
    + _OWN
    + """
local answers = {}
for i, key in ipairs(KEYS) do
  local at = i * 3
  if own(key, ARGV[at], ARGV[at + 1], ARGV[at + 2]) then
    redis.call('HINCRBY', key, 'n', 1)
    answers[i] = 1
  else
    answers[i] = 0
  end
end
return answers
"""
)

RENEW: Final = BEGIN.replace("redis.call('HINCRBY', key, 'n', 1)", "redis.call('HSET', key, 'u', now + lease)")

RELEASE: Final = """
for i, key in ipairs(KEYS) do
  local at = i * 3
  local found = redis.call('HMGET', key, 't', 'f', 'h', 's')
  if found[1] == ARGV[at] and found[2] == ARGV[at + 1] and found[3] == ARGV[at + 2] and not found[4] then
    redis.call('HSET', key, 'u', 0)
  end
end
"""

COMPLETE: Final = (
    _NOW
    + """
-- ARGV: lease ms, marker ms, answer ms, unpublished ms; then per ending: token ('' without a lease), fence, hop, place,
-- 'd' or 'm', request id, the other key of the ending (answer or moved), the ending.
local lease, marker = tonumber(ARGV[1]), ARGV[2]
local answers = {}
for i, key in ipairs(KEYS) do
  local at = 5 + (i - 1) * 8
  local token, kind, stored = ARGV[at], ARGV[at + 4], ARGV[at + 6]
  if token == '' then
    redis.call('SET', stored, ARGV[at + 7], 'PX', ARGV[3], 'NX')
    answers[i] = 1
  else
    local found = redis.call('HMGET', key, 't', 'f', 'h')
    if not found[1] or (found[1] == token and found[2] == ARGV[at + 1] and found[3] == ARGV[at + 2]) then
      redis.call('HSET', key, 't', token, 'f', ARGV[at + 1], 'h', ARGV[at + 2], 's', kind, 'w', ARGV[at + 3])
      if not found[1] then
        redis.call('HSET', key, 'u', now, 'n', 0, 'r', ARGV[at + 5], 'c', '')
        redis.call('PEXPIRE', key, marker)
      elseif kind == 'd' then
        redis.call('HSET', key, 'r', ARGV[at + 5])
      end
      redis.call('SET', stored, ARGV[at + 7], 'PX', ARGV[4])
      answers[i] = 1
    else
      answers[i] = 0
    end
  end
end
return answers
"""
)

PUBLISHED: Final = """
-- ARGV: answer ms, head of answer keys; then token, fence, moved key of each lease.
for i, key in ipairs(KEYS) do
  local at = i * 3
  local found = redis.call('HMGET', key, 't', 'f', 's', 'r')
  if found[1] == ARGV[at] and found[2] == ARGV[at + 1] and found[3] then
    redis.call('HSET', key, 'p', 1)
    if found[3] == 'd' then redis.call('PEXPIRE', ARGV[2] .. found[4], ARGV[1]) end
  end
  if ARGV[at + 2] ~= '' then redis.call('DEL', ARGV[at + 2]) end
end
"""
