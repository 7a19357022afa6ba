"""Limits of callers in Redis: the port `CallerStore`. A scope has two windows, its running requests and its spending.

Spending is counted in whole pico-dollars in 64 bits: a scope may spend 9.2 million dollars.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from broker.adapters.redis_client import RedisClient
from broker.adapters.redis_windows import WINDOW_LIBRARY
from broker.config.models import Redis
from broker.ports import CALLER_SECONDS, CallerClaim, CallerEnd, CallerRefusal, Scope
from broker.topics import TopicNames

WINDOW_MS: Final = 60_000
TAKEN_MS: Final = 86_400_000
"""How long a request that never ends is known: a day, the longest deadline by default."""

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local length = tonumber(ARGV[1])
"""

_TAKE: Final = (
    WINDOW_LIBRARY
    + _NOW
    + """
-- ARGV: window ms, running ms, taken ms; per claim: token, tokens, number of scopes, and rpm, tpm, parallel, budget
-- (-1: none) of each. KEYS: the scopes of all claims, in order.
local answers, at, k = {}, 4, 0
while at <= #ARGV do
  local token, tokens, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local refusal, fresh = false, {}
  for n = 1, count do
    local key, l = KEYS[k + n], at + 3 + (n - 1) * 4
    local rpm, tpm, parallel = tonumber(ARGV[l]), tonumber(ARGV[l + 1]), tonumber(ARGV[l + 2])
    fresh[n] = redis.call('EXISTS', key .. ':t:' .. token) == 0
    if fresh[n] and not refusal then
      local rw, tw = 0, 0
      if rpm >= 0 then
        w_expire(key .. ':rpm', now, length)
        rw = w_wait(key .. ':rpm', now, length, rpm, 1)
      end
      if tpm >= 0 then
        w_expire(key .. ':tpm', now, length)
        tw = w_wait(key .. ':tpm', now, length, tpm, tokens)
      end
      if ARGV[l + 3] ~= '-1' then
        local spent = redis.call('GET', key .. ':spent') or '0'
        if tonumber(spent) >= tonumber(ARGV[l + 3]) then refusal = {n, 'budget', -1, spent} end
      end
      if not refusal and (rw > 0 or tw > 0) then
        refusal = rw >= tw and {n, 'rpm', rw, '0'} or {n, 'tpm', tw, '0'}
      end
      if not refusal and parallel >= 0 then
        redis.call('ZREMRANGEBYSCORE', key .. ':run', '-inf', now)
        local running = redis.call('ZCARD', key .. ':run')
        if running >= parallel then refusal = {n, 'parallel', -1, tostring(running)} end
      end
    end
  end
  if not refusal then
    for n = 1, count do
      local key, l = KEYS[k + n], at + 3 + (n - 1) * 4
      local rpm, tpm, parallel = tonumber(ARGV[l]), tonumber(ARGV[l + 1]), tonumber(ARGV[l + 2])
      if fresh[n] then
        local rs, ts, counted = -1, -1, tokens
        if rpm >= 0 then rs = w_take(key .. ':rpm', now, length, 1) end
        if tpm >= 0 then
          counted = math.min(tokens, tpm)
          ts = w_take(key .. ':tpm', now, length, counted)
        end
        if parallel >= 0 then
          redis.call('ZADD', key .. ':run', now + ARGV[2], token)
          redis.call('PEXPIRE', key .. ':run', 2 * ARGV[2])
        end
        redis.call('SET', key .. ':t:' .. token, rs .. ' ' .. ts .. ' ' .. counted, 'PX', ARGV[3])
      end
    end
  end
  answers[#answers + 1] = refusal or 0
  at, k = at + 3 + count * 4, k + count
end
return answers
"""
)

_SETTLE: Final = (
    WINDOW_LIBRARY
    + """
-- ARGV: per end and scope: token, tokens really used (-1: as estimated), pico-dollars, whether all is given back.
for i, key in ipairs(KEYS) do
  local at = 1 + (i - 1) * 4
  local taken = key .. ':t:' .. ARGV[at]
  local found = redis.call('GET', taken)
  if found then
    redis.call('DEL', taken)
    redis.call('ZREM', key .. ':run', ARGV[at])
    local rs, ts, counted = string.match(found, '^(%S+) (%S+) (%S+)$')
    if ARGV[at + 3] == '1' then
      if rs ~= '-1' then w_settle(key .. ':rpm', rs, -1) end
      if ts ~= '-1' then w_settle(key .. ':tpm', ts, -tonumber(counted)) end
    elseif ARGV[at + 1] ~= '-1' and ts ~= '-1' then
      w_settle(key .. ':tpm', ts, tonumber(ARGV[at + 1]) - tonumber(counted))
    end
    if ARGV[at + 2] ~= '0' then redis.call('INCRBY', key .. ':spent', ARGV[at + 2]) end
  end
end
"""
)

_RENEW: Final = (
    _NOW
    + """
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key .. ':run', 'XX', now + ARGV[2], ARGV[2 + i])
  redis.call('PEXPIRE', key .. ':run', 2 * ARGV[2])
end
"""
)

_USED: Final = (
    WINDOW_LIBRARY
    + _NOW
    + """
local answers = {}
for i, key in ipairs(KEYS) do
  w_expire(key .. ':rpm', now, length)
  w_expire(key .. ':tpm', now, length)
  redis.call('ZREMRANGEBYSCORE', key .. ':run', '-inf', now)
  answers[i] = {w_used(key .. ':rpm'), w_used(key .. ':tpm'), redis.call('ZCARD', key .. ':run'),
    redis.call('GET', key .. ':spent') or '0'}
end
return answers
"""
)


class RedisCallerStore:
    """See the port."""

    def __init__(self, redis: Redis, names: TopicNames) -> None:
        self._redis = RedisClient(redis)
        self._names = names
        self._take = self._redis.script(_TAKE)
        self._settle = self._redis.script(_SETTLE)
        self._renew = self._redis.script(_RENEW)
        self._used = self._redis.script(_USED)

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        await self._redis.start()

    async def take(self, claims: Sequence[CallerClaim]) -> Sequence[CallerRefusal | None]:
        """Take each claim out of all its scopes, or out of none; see the port."""
        if not claims:
            return []
        keys: list[str] = []
        args: list[Any] = [WINDOW_MS, round(CALLER_SECONDS * 1000), TAKEN_MS]
        for claim in claims:
            args += (claim.token, claim.tokens, len(claim.scopes))
            for scope in claim.scopes:
                keys.append(self._names.caller_key(scope.name))
                limits = (scope.rpm, scope.tpm, scope.parallel, scope.budget)
                args += (-1 if limit is None else limit for limit in limits)
        answers = await self._redis.run(self._take, keys, args)
        return [_refusal(claim, answer) for claim, answer in zip(claims, answers, strict=True)]

    async def settle(self, ends: Sequence[CallerEnd]) -> None:
        """End requests; see the port."""
        keys: list[str] = []
        args: list[Any] = []
        for end in ends:
            for scope in end.scopes:
                keys.append(self._names.caller_key(scope.name))
                args += (end.token, -1 if end.used is None else end.used, end.cost_pico, int(end.refund))
        if keys:
            await self._redis.run(self._settle, keys, args)

    async def renew(self, claims: Sequence[CallerClaim]) -> None:
        """Keep the places of running requests; see the port."""
        running = [(scope, claim.token) for claim in claims for scope in claim.scopes if scope.parallel is not None]
        if running:
            keys = [self._names.caller_key(scope.name) for scope, _ in running]
            tokens = [token for _, token in running]
            await self._redis.run(self._renew, keys, [WINDOW_MS, round(CALLER_SECONDS * 1000), *tokens])

    async def used(self, scopes: Sequence[Scope]) -> Sequence[Mapping[str, int]]:
        """Return requests, tokens, running and spent of each scope."""
        keys = [self._names.caller_key(scope.name) for scope in scopes]
        names = ("requests", "tokens", "running", "spent")
        answers = await self._redis.run(self._used, keys, [WINDOW_MS]) if keys else []
        return [dict(zip(names, map(int, answer), strict=True)) for answer in answers]

    async def stop(self) -> None:
        """Close."""
        await self._redis.stop()


def _refusal(claim: CallerClaim, answer: Any) -> CallerRefusal | None:  # noqa: ANN401 - Redis's own types
    if answer == 0:
        return None
    number, limit, wait, used = answer
    retry_after = wait / 1000 if wait >= 0 else math.inf
    return CallerRefusal(claim.scopes[number - 1].name, limit.decode(), retry_after, int(used))
