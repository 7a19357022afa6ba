"""The journal's Lua: each script handles a whole batch, so that no request pays for a round trip of its own.

A batch comes as one JSON list of texts, its Redis keys in it: as keys and arguments of their own they cost the worker
a tenth of its CPU to write. So it is one Redis, not a cluster. Fields of a request's hash: t token, f fence, h hop, u
lease until (unix ms), n calls begun, s state (absent: leased, d: done, m: moved on), p published, w where its record
stands, r request id, c tenant.
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
-- ARGV: lease ms, marker ms, head of answer keys; key, token, hop, place, request id, tenant, moved key of each claim.
local lease, marker, given = tonumber(ARGV[1]), ARGV[2], cjson.decode(ARGV[4])
local answers = {}
for i = 1, #given / 7 do
  local at = i * 7 - 6
  local key, token, hop = given[at], given[at + 1], tonumber(given[at + 2])
  local place, id, tenant = given[at + 3], given[at + 4], given[at + 5]
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
    answers[i] = {'M', redis.call('GET', given[at + 6])}
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
-- ARGV: lease ms, marker ms; key, token, fence, hop of each lease.
local lease, marker, given = tonumber(ARGV[1]), ARGV[2], cjson.decode(ARGV[3])
"""
    + _OWN
    + """
local answers = {}
for i = 1, #given / 4 do
  local at = i * 4 - 3
  local key = given[at]
  if own(key, given[at + 1], given[at + 2], given[at + 3]) then
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
local given = cjson.decode(ARGV[3])
for i = 1, #given / 4 do
  local at = i * 4 - 3
  local key = given[at]
  local found = redis.call('HMGET', key, 't', 'f', 'h', 's')
  if found[1] == given[at + 1] and found[2] == given[at + 2] and found[3] == given[at + 3] and not found[4] then
    redis.call('HSET', key, 'u', 0)
  end
end
"""

COMPLETE: Final = (
    _NOW
    + """
-- ARGV: marker ms, answer ms, unpublished ms; per ending: key, token ('' without a lease), fence, hop, place, 'd' or
-- 'm', request id, the other key of the ending (answer or moved); then the endings themselves.
local marker, given = ARGV[1], cjson.decode(ARGV[4])
local answers = {}
for i = 1, #given / 8 do
  local at = i * 8 - 7
  local key, token, fence, hop = given[at], given[at + 1], given[at + 2], given[at + 3]
  local kind, id, stored, value = given[at + 5], given[at + 6], given[at + 7], ARGV[4 + i]
  if token == '' then
    redis.call('SET', stored, value, 'PX', ARGV[2], 'NX')
    answers[i] = 1
  else
    local found = redis.call('HMGET', key, 't', 'f', 'h')
    if not found[1] then
      redis.call('HSET', key, 't', token, 'f', fence, 'h', hop, 's', kind, 'w', given[at + 4], 'u', now, 'n', 0,
        'r', id, 'c', '')
      redis.call('PEXPIRE', key, marker)
      redis.call('SET', stored, value, 'PX', ARGV[3])
      answers[i] = 1
    elseif found[1] == token and found[2] == fence and found[3] == hop then
      redis.call('HSET', key, 's', kind, 'w', given[at + 4], 'r', id)
      redis.call('SET', stored, value, 'PX', ARGV[3])
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
-- ARGV: answer ms, head of answer keys; key, token, fence, moved key of each lease.
local given = cjson.decode(ARGV[3])
for i = 1, #given / 4 do
  local at = i * 4 - 3
  local key = given[at]
  local found = redis.call('HMGET', key, 't', 'f', 's', 'r')
  if found[1] == given[at + 1] and found[2] == given[at + 2] and found[3] then
    redis.call('HSET', key, 'p', 1)
  end
  if found[1] == given[at + 1] and found[3] == 'd' then
    redis.call('PEXPIRE', ARGV[2] .. found[4], ARGV[1])
  else
    redis.call('DEL', given[at + 3])  -- of a hop that moved on, and may be long past
  end
end
"""
