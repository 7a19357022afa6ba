"""Virtual keys: who is calling, and the limits of that caller's own key. No I/O; time is an argument."""

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from broker.config import Settings, VirtualKey
from broker.errors import BudgetExceeded, InvalidApiKey, ModelNotAllowed, RateLimitExceeded
from broker.ledger.money import to_pico, to_text

WINDOW_S: Final = 60.0
"""Seconds that `rpm_limit` and `tpm_limit` look back over; LiteLLM's, and every provider's."""

CACHED_KEYS: Final = 10_000
"""Authorization headers remembered, so that a known key is hashed once; forgotten together when full."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request is from. `key` is None for the anonymous tenant; `key_id` and `team` are then empty."""

    tenant: str
    key_id: str
    team: str
    key: VirtualKey | None


class KeyRing:
    """The virtual keys of the configuration. A raw key is never in a message or a repr."""

    def __init__(self, settings: Settings) -> None:
        self._keys = settings.keys
        self._known: dict[str, tuple[VirtualKey, Caller | None]] = {}
        # A caller only where the key has no limits: requests of a limited one have to be told apart.
        name = settings.anonymous_tenant
        self._anonymous = None if name is None else Caller(tenant=name, key_id="", team="", key=None)

    def __repr__(self) -> str:
        return f"KeyRing({len(self._keys)} keys)"

    def tenant_of(self, authorization: str | None, now_ms: int, alias: str) -> Caller:
        """Return who calls, and that they may use `alias`; `now_ms` is unix milliseconds.

        `authorization` is the header's text, `Bearer <key>`, or None when the record has none. Each call of a limited
        key returns a caller of its own, which is what `KeyLimits` tells two requests apart by. Raises `InvalidApiKey`
        for a key that is malformed, unknown, blocked or expired, and where a key is needed and absent;
        `ModelNotAllowed` for an alias the key may not use.
        """
        if authorization is None:
            if self._anonymous is None:
                raise InvalidApiKey("a key is needed: send it in the header `authorization` as `Bearer <key>`")
            return self._anonymous
        key, caller = self._known.get(authorization) or self._find(authorization)
        if key.blocked:
            raise InvalidApiKey(f"the key {key.key_id} is blocked")
        if key.expires_ms is not None and now_ms >= key.expires_ms:
            raise InvalidApiKey(f"the key {key.key_id} has expired")
        if key.aliases and alias not in key.aliases:
            raise ModelNotAllowed(f"the key {key.key_id} may not use {alias}", param="model")
        return caller or _caller(key)

    def _find(self, authorization: str) -> tuple[VirtualKey, Caller | None]:
        """Look a header up by the hash of its key and remember it; only keys that exist are remembered."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise InvalidApiKey("the header `authorization` is not `Bearer <key>`")
        key = self._keys.get(hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest())
        if key is None:
            raise InvalidApiKey("the key is unknown")
        if len(self._known) >= CACHED_KEYS:
            self._known.clear()
        found = (key, None if _is_limited(key) else _caller(key))
        self._known[authorization] = found
        return found


@dataclass(slots=True)
class _Entry:
    """What one request took of the window."""

    at: float
    tokens: int
    counts: bool = True


@dataclass(slots=True)
class _Account:
    """What a key has in use: requests and tokens of the last 60 s, calls running now, picodollars spent."""

    entries: deque[_Entry] = field(default_factory=deque)
    requests: int = 0
    tokens: int = 0
    running: int = 0
    spent: int = 0

    def expire(self, now: float) -> None:
        """Forget what is 60 s old."""
        while self.entries and self.entries[0].at <= now - WINDOW_S:
            entry = self.entries.popleft()
            self.requests -= entry.counts
            self.tokens -= entry.tokens
            entry.tokens = 0
            entry.counts = False

    def wait_for(self, now: float, requests: int, tokens: int) -> float:
        """Seconds until the window holds at most so many requests and tokens."""
        held, used = self.requests, self.tokens
        for entry in self.entries:
            if held <= requests and used <= tokens:
                return 0.0
            held -= entry.counts
            used -= entry.tokens
            if held <= requests and used <= tokens:
                return entry.at + WINDOW_S - now
        return 0.0


@dataclass(slots=True)
class _Held:
    caller: Caller
    account: _Account
    entry: _Entry


class KeyLimits:
    """`rpm_limit`, `tpm_limit`, `max_parallel_requests` and `max_budget` of each key, within this one process.

    The counts live in memory: two worker processes each allow the whole limit, and a restart forgets what was spent.
    A port that workers share takes its place. In the process no 60 s, wherever they begin, hold more than the limit.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        # By identity: two requests of one key have equal callers, and each has to give back what it took itself. The
        # caller is kept beside it, so that its id is not used again meanwhile.
        self._held: dict[int, _Held] = {}

    def take(self, caller: Caller, tokens: int, now: float) -> None:
        """Take a request and its estimated `tokens` (input + output) at `now`, monotonic seconds.

        Every limit of the key is checked before any is taken, so a refusal burns nothing. Tokens above `tpm_limit`
        count as the whole of it: such a request runs in an empty window rather than never. Raises `BudgetExceeded`, or
        `RateLimitExceeded` with the seconds until it would be let in (None where that depends on when others end).
        """
        key = caller.key
        if key is None or not _is_limited(key):
            return
        account = self._accounts.setdefault(key.hash, _Account())
        account.expire(now)
        if key.max_budget is not None and account.spent >= to_pico(key.max_budget):
            spent = to_text(account.spent).rstrip("0").rstrip(".")
            raise BudgetExceeded(f"the key {key.key_id} has spent {spent} USD of its budget of {key.max_budget} USD")
        if key.tpm_limit is not None:
            tokens = min(tokens, key.tpm_limit)
        self._check_rates(key, account, tokens, now)
        if key.max_parallel_requests is not None and account.running >= key.max_parallel_requests:
            raise RateLimitExceeded(
                f"the key {key.key_id} has {account.running} requests running, its max_parallel_requests"
            )
        entry = _Entry(now, tokens)
        account.entries.append(entry)
        account.requests += 1
        account.tokens += tokens
        account.running += 1
        self._held[id(caller)] = _Held(caller, account, entry)

    @staticmethod
    def _check_rates(key: VirtualKey, account: _Account, tokens: int, now: float) -> None:
        requests_left = None if key.rpm_limit is None else key.rpm_limit - 1
        tokens_left = None if key.tpm_limit is None else key.tpm_limit - tokens
        wait = account.wait_for(
            now,
            account.requests if requests_left is None else requests_left,
            account.tokens if tokens_left is None else tokens_left,
        )
        if wait > 0:
            over = requests_left is not None and account.requests > requests_left
            limit = f"rpm_limit of {key.rpm_limit}" if over else f"tpm_limit of {key.tpm_limit}"
            raise RateLimitExceeded(f"the key {key.key_id} is at its {limit}", retry_after=wait)

    def settle(self, caller: Caller, *, tokens: int, cost_pico: int | None = None) -> None:
        """End a request that was answered: `tokens` it really used, `cost_pico` in picodollars, None when unpriced.

        Ends the request for these limits, as `release` and `refund` do; whichever comes first counts.
        """
        held = self._held.pop(id(caller), None)
        if held is None:
            return
        held.account.running -= 1
        held.account.spent += cost_pico or 0
        if held.entry.counts:
            held.account.tokens += tokens - held.entry.tokens
            held.entry.tokens = tokens

    def release(self, caller: Caller) -> None:
        """End a request without an answer: its place is free at once, what it took of the minute stays taken.

        A caller that holds nothing, because it was refused or has ended already, gives nothing back.
        """
        held = self._held.pop(id(caller), None)
        if held is not None:
            held.account.running -= 1

    def refund(self, caller: Caller) -> None:
        """End a request that goes on elsewhere and will be taken again there: everything it took is given back."""
        held = self._held.pop(id(caller), None)
        if held is None:
            return
        held.account.running -= 1
        if held.entry.counts:
            held.account.requests -= 1
            held.account.tokens -= held.entry.tokens
            held.entry.tokens = 0
            held.entry.counts = False

    def running(self) -> Mapping[str, int]:
        """Requests running now, by hash of the key."""
        return {key: account.running for key, account in self._accounts.items()}


def _caller(key: VirtualKey) -> Caller:
    return Caller(key.tenant, key.key_id, key.team, key)


def _is_limited(key: VirtualKey) -> bool:
    return not (
        key.rpm_limit is None and key.tpm_limit is None and key.max_parallel_requests is None and key.max_budget is None
    )
