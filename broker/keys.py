"""Virtual keys: who is calling, and the limits of that caller's own key. No I/O; time is an argument."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from broker.config import Settings, VirtualKey
from broker.envelope.headers import fingerprint
from broker.errors import BudgetExceeded, InvalidApiKey, ModelNotAllowed, RateLimitExceeded
from broker.ledger.money import to_pico, to_text
from broker.limits.buckets import SlidingWindow, Step

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

    def tenant_of(self, authorization: str | None, now_ms: int, alias: str, told: str | None = None) -> Caller:
        """Return who calls, and that they may use `alias`; `now_ms` is unix milliseconds.

        `authorization` is the header's text, `Bearer <key>`, or None when the record has none; `told` is then the hash
        of its key, where the broker wrote the record and told it. Each call of a limited key returns a caller of its
        own, which is what `KeyLimits` tells two requests apart by. Raises `InvalidApiKey` for a key that is malformed,
        unknown, blocked or expired, and where a key is needed and absent; `ModelNotAllowed` for an alias the key may
        not use.
        """
        if authorization is not None:
            key, caller = self._known.get(authorization) or self._find(authorization)
        elif told is not None:
            key, caller = self._key(told), None
        elif self._anonymous is not None:
            return self._anonymous
        else:
            raise InvalidApiKey("a key is needed: send it in the header `authorization` as `Bearer <key>`")
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
        if scheme.lower() != "bearer" or not token.strip():
            raise InvalidApiKey("the header `authorization` is not `Bearer <key>`")
        key = self._key(fingerprint(authorization))
        if len(self._known) >= CACHED_KEYS:
            self._known.clear()
        found = (key, None if _is_limited(key) else _caller(key))
        self._known[authorization] = found
        return found

    def _key(self, digest: str) -> VirtualKey:
        key = self._keys.get(digest)
        if key is None:
            raise InvalidApiKey("the key is unknown")
        return key


class _Account:
    """What a key has in use: requests and tokens of the last 60 s, calls running now, pico-dollars spent."""

    __slots__ = ("budget", "now", "requests", "running", "spent", "tokens")

    def __init__(self, key: VirtualKey) -> None:
        self.requests = None if key.rpm_limit is None else SlidingWindow(key.rpm_limit, WINDOW_S)
        self.tokens = None if key.tpm_limit is None else SlidingWindow(key.tpm_limit, WINDOW_S)
        self.budget = None if key.max_budget is None else to_pico(key.max_budget)
        self.running = 0
        self.spent = 0
        self.now = 0.0
        """Of the latest request: as far as the windows have moved."""


@dataclass(slots=True)
class _Held:
    """What one request took: its caller, and the receipts of the two windows."""

    caller: Caller
    account: _Account
    tokens: int
    request_step: Step | None
    token_step: Step | None

    def correct(self, *, requests: int, tokens: int) -> None:
        """Change what was taken by so many requests and tokens."""
        account = self.account
        if account.requests is not None and self.request_step is not None and requests:
            account.requests.settle(self.request_step, requests, account.now)
        if account.tokens is not None and self.token_step is not None and tokens:
            account.tokens.settle(self.token_step, tokens, account.now)


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
        account = self._accounts.get(key.hash)
        if account is None:
            account = self._accounts[key.hash] = _Account(key)
        account.now = now
        tokens = tokens if key.tpm_limit is None else min(tokens, key.tpm_limit)
        _check(key, account, tokens, now)
        account.running += 1
        self._held[id(caller)] = _Held(
            caller,
            account,
            tokens,
            None if account.requests is None else account.requests.take(1, now),
            None if account.tokens is None else account.tokens.take(tokens, now),
        )

    def settle(self, caller: Caller, *, tokens: int, cost_pico: int | None = None) -> None:
        """End a request that was answered: `tokens` it really used, `cost_pico` in pico-dollars, None when unpriced.

        Ends the request for these limits, as `release` and `refund` do; whichever comes first counts.
        """
        held = self._end(caller)
        if held is not None:
            held.account.spent += cost_pico or 0
            held.correct(requests=0, tokens=tokens - held.tokens)

    def release(self, caller: Caller) -> None:
        """End a request without an answer: its place is free at once, what it took of the minute stays taken.

        A caller that holds nothing, because it was refused or has ended already, gives nothing back.
        """
        self._end(caller)

    def refund(self, caller: Caller) -> None:
        """End a request that goes on elsewhere and will be taken again there: everything it took is given back."""
        held = self._end(caller)
        if held is not None:
            held.correct(requests=-1, tokens=-held.tokens)

    def _end(self, caller: Caller) -> _Held | None:
        held = self._held.pop(id(caller), None)
        if held is not None:
            held.account.running -= 1
        return held

    def running(self) -> Mapping[str, int]:
        """Requests running now, by hash of the key."""
        return {key: account.running for key, account in self._accounts.items()}


def _caller(key: VirtualKey) -> Caller:
    return Caller(key.tenant, key.key_id, key.team, key)


def _is_limited(key: VirtualKey) -> bool:
    return not (
        key.rpm_limit is None and key.tpm_limit is None and key.max_parallel_requests is None and key.max_budget is None
    )


def _check(key: VirtualKey, account: _Account, tokens: int, now: float) -> None:
    """Raise for the first limit that has no room; takes nothing."""
    if account.budget is not None and account.spent >= account.budget:
        spent = to_text(account.spent).rstrip("0").rstrip(".")
        raise BudgetExceeded(f"the key {key.key_id} has spent {spent} USD of its budget of {key.max_budget} USD")
    requests_wait = 0.0 if account.requests is None else account.requests.wait(1, now)
    tokens_wait = 0.0 if account.tokens is None else account.tokens.wait(tokens, now)
    if requests_wait or tokens_wait:
        limit = f"rpm_limit of {key.rpm_limit}" if requests_wait >= tokens_wait else f"tpm_limit of {key.tpm_limit}"
        raise RateLimitExceeded(f"the key {key.key_id} is at its {limit}", retry_after=max(requests_wait, tokens_wait))
    if key.max_parallel_requests is not None and account.running >= key.max_parallel_requests:
        raise RateLimitExceeded(
            f"the key {key.key_id} has {account.running} requests running, its max_parallel_requests"
        )
