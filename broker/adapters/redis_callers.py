"""Limits of callers in Redis: the port `CallerStore`. One Redis, or a primary with replicas; not a Redis Cluster.

Spending is counted in dollars and pico-dollars apart, exact up to nine quadrillion dollars, and never expires.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from broker.adapters import redis_callers_scripts as scripts
from broker.adapters.memory_callers import REMEMBERED_SECONDS
from broker.adapters.redis_client import RedisClient
from broker.config.models import Redis
from broker.ledger.money import PICO
from broker.ports import CALLER_SECONDS, CallerClaim, CallerEnd, CallerRefusal, Scope
from broker.topics import TopicNames

WINDOW_SECONDS: Final = 60.0
"""What `rpm` and `tpm` of a caller look back over."""


class RedisCallerStore:
    """See the port."""

    def __init__(self, redis: Redis, names: TopicNames, *, window_seconds: float = WINDOW_SECONDS) -> None:
        """Count as the port says; tests shorten the minute, and with it how long a place lasts."""
        self._redis = RedisClient(redis)
        self._names = names
        self._window_ms = round(window_seconds * 1000)
        self._place_ms = round(CALLER_SECONDS / WINDOW_SECONDS * window_seconds * 1000)
        self._remember_ms = round(REMEMBERED_SECONDS * 1000)
        self._take = self._redis.script(scripts.TAKE)
        self._settle = self._redis.script(scripts.SETTLE)
        self._renew = self._redis.script(scripts.RENEW)
        self._used = self._redis.script(scripts.USED)

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        await self._redis.start()

    async def take(self, claims: Sequence[CallerClaim]) -> Sequence[CallerRefusal | None]:
        """Take each claim out of all its scopes, or out of none; see the port."""
        if not claims:
            return []
        keys, args, groups = self._head(claims)
        for claim in claims:
            args += (claim.token, claim.tokens, groups[id(claim.scopes)])
        answers = await self._redis.run(self._take, keys, args)
        return [None if answer == 0 else _refusal(claim, answer) for claim, answer in zip(claims, answers, strict=True)]

    async def settle(self, ends: Sequence[CallerEnd]) -> None:
        """End requests; see the port."""
        if not ends:
            return
        keys, args, groups = self._head(ends)
        for end in ends:
            dollars, pico = divmod(end.cost_pico, PICO)
            used = "" if end.used is None else end.used
            args += (end.token, groups[id(end.scopes)], end.tokens, used, dollars, pico, int(end.refund))
        await self._redis.run(self._settle, keys, args)

    async def renew(self, claims: Sequence[CallerClaim]) -> None:
        """Keep the places of running requests; see the port."""
        if not claims:
            return
        keys, args, groups = self._head(claims)
        for claim in claims:
            args += (claim.token, groups[id(claim.scopes)])
        await self._redis.run(self._renew, keys, args)

    async def used(self, scopes: Sequence[Scope]) -> Sequence[Mapping[str, int]]:
        """Return what is in use; see the port. Requests, tokens and places are counted where they have a limit."""
        if not scopes:
            return []
        keys = [self._names.caller_key(scope.name) for scope in scopes]
        answers = await self._redis.run(self._used, keys, [self._window_ms])
        return [
            {"requests": requests, "tokens": tokens, "running": running, "spent": dollars * PICO + pico}
            for requests, tokens, running, dollars, pico in answers
        ]

    async def stop(self) -> None:
        """Close."""
        await self._redis.stop()

    def _head(self, items: Sequence[CallerClaim | CallerEnd]) -> tuple[list[str], list[Any], dict[int, int]]:
        """Return the scopes' keys, the arguments every script begins with, and the group's number by id of its tuple.

        Requests of one caller have one tuple of scopes, so a batch tells each scope once; equal tuples do no harm.
        """
        groups: dict[int, int] = {}
        members: list[str] = []
        numbers: dict[Scope, int] = {}
        for item in items:
            if id(item.scopes) not in groups:
                groups[id(item.scopes)] = len(groups) + 1
                members.append(" ".join(str(numbers.setdefault(scope, len(numbers) + 1)) for scope in item.scopes))
        head = self._names.caller_key("request:")
        args: list[Any] = [self._window_ms, self._place_ms, self._remember_ms, head, len(numbers), len(groups)]
        for scope in numbers:
            args += ("" if limit is None else limit for limit in (scope.rpm, scope.tpm, scope.parallel))
            args += ("", "") if scope.budget is None else divmod(scope.budget, PICO)
        args += members
        return [self._names.caller_key(scope.name) for scope in numbers], args, groups


def _refusal(claim: CallerClaim, answer: Any) -> CallerRefusal:  # noqa: ANN401 - Redis's own types
    number, limit, wait, dollars, rest = answer
    retry_after = wait / 1000 if wait >= 0 else math.inf
    return CallerRefusal(claim.scopes[number - 1].name, limit.decode(), retry_after, dollars * PICO + rest)
