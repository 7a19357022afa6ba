"""A window that moves with time, as Lua for other scripts: never more than a number of units in any stretch of it.

A window is one hash: `u` units inside, `b` its oldest step, and a field per step with the units counted in it. A step
leaves as a whole, once its last moment has left, so a unit may count a step too long and never too short.
"""

from typing import Final

STEPS: Final = 600
"""Steps a window is kept in: 100 ms of a minute, 2.4 min of a day."""

WINDOW_LIBRARY: Final = """
local STEPS = 600
-- Let go of the steps that have left. Times are unix ms; `length` is the window's.
local function w_expire(key, now, length)
  local grain = length / STEPS
  local first = math.floor((now - length) / grain)
  local base = tonumber(redis.call('HGET', key, 'b'))
  if not base or base >= first then return end
  if first - base > 2 * STEPS then
    redis.call('DEL', key)
    return
  end
  local gone = 0
  for step = base, first - 1 do
    local units = redis.call('HGET', key, step)
    if units then
      gone = gone + tonumber(units)
      redis.call('HDEL', key, step)
    end
  end
  redis.call('HSET', key, 'b', first)
  if gone ~= 0 then redis.call('HINCRBY', key, 'u', -gone) end
end
local function w_used(key)
  return tonumber(redis.call('HGET', key, 'u') or 0)
end
-- Milliseconds until `n` units fit, 0 when they do; more than the limit counts as the limit.
local function w_wait(key, now, length, limit, n)
  local excess = w_used(key) + math.min(n, limit) - limit
  if excess <= 0 then return 0 end
  local grain = length / STEPS
  local base = tonumber(redis.call('HGET', key, 'b'))
  for step = base, math.floor(now / grain) + STEPS do
    local units = redis.call('HGET', key, step)
    if units then
      excess = excess - tonumber(units)
      if excess <= 0 then return math.max(1, math.ceil((step + 1) * grain + length - now)) end
    end
  end
  return length
end
-- Count `n` units at `at`; the step is what `w_settle` wants to know.
local function w_take(key, at, length, n)
  local grain = length / STEPS
  local step = math.floor(at / grain)
  redis.call('HSETNX', key, 'b', step)
  redis.call('HINCRBY', key, step, n)
  redis.call('HINCRBY', key, 'u', n)
  redis.call('PEXPIRE', key, 2 * length)
  return step
end
-- Correct what was counted in a step; without effect once that step has left.
local function w_settle(key, step, difference)
  local units = tonumber(redis.call('HGET', key, step))
  if not units then return end
  if difference < -units then difference = -units end
  redis.call('HINCRBY', key, step, difference)
  redis.call('HINCRBY', key, 'u', difference)
end
"""
