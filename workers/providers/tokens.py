"""Tokens that expire: fetched from a token service through the transport, kept, and fetched anew before they expire.

RFC 6749 is the contract of such a service: a form goes there, `access_token` and `expires_in` or `error` come back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from broker.clock import Clock
from broker.errors import BadUpstreamResponse, RequestError, UpstreamError
from workers.providers.base import Outbound
from workers.providers.credential import TOKEN_SECONDS
from workers.providers.status import retry_after_seconds
from workers.providers.transport import Response, Transport, origin

EARLY_SECONDS: Final = 300.0
"""How long before its end a token is replaced, or a quarter of its life where that is shorter."""
UNUSED_SHARE: Final = 0.1
"""Of that time, the last part in which it is not used: a call that begins now may take long to be accepted."""
REST_SECONDS: Final = 5.0
"""How long a token service that failed is left alone; calls in between get the same error."""
YOUNG_SECONDS: Final = 30.0
"""A token this young is kept when a call is refused: the call had an older one, or another token will not help."""
SHORTEST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 86_400.0
MAX_ANSWER_BYTES: Final = 256 << 10
MAX_MESSAGE: Final = 500

_OWN_STATUSES: Final = frozenset({408, 429})
_ERROR: Final = 400
_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and the seconds for which it is good, counted from when it was asked for."""

    text: str = field(repr=False)
    seconds: float


@dataclass(frozen=True, slots=True)
class _Held:
    """A token with its moments, seconds of the monotonic clock."""

    text: str = field(repr=False)
    asked: float
    renew_at: float
    unused_at: float


class Tokens:
    """Keeps one token. `fetch` raises nothing but a `RequestError`; however many wait, one fetch is under way."""

    def __init__(self, fetch: Callable[[], Awaitable[Token]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._held: _Held | None = None
        self._fetching: asyncio.Task[_Held] | None = None
        self._error: RequestError | None = None
        self._rests_until = 0.0

    async def get(self) -> str:
        """Return a token; it waits where none is at hand, and not where the one at hand is about to be replaced.

        Raises what the fetch raised. A call that is cancelled leaves the fetch to the others.
        """
        now = self._clock.monotonic()
        held = self._held
        if held is not None and now < held.unused_at:
            if now >= held.renew_at and now >= self._rests_until:
                self._begin()
            return held.text
        if self._error is not None and now < self._rests_until:
            raise self._error.with_traceback(None)
        return (await asyncio.shield(self._begin())).text

    def refused(self) -> None:
        """Drop the token, unless it is so young that another one would fare no better."""
        held = self._held
        if held is not None and self._clock.monotonic() - held.asked >= YOUNG_SECONDS:
            self._held = None

    def _begin(self) -> "asyncio.Task[_Held]":
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._renew())
            self._fetching.add_done_callback(self._ended)
        return self._fetching

    async def _renew(self) -> _Held:
        asked = self._clock.monotonic()
        token = await self._fetch()
        early = min(EARLY_SECONDS, token.seconds / 4)
        end = asked + token.seconds
        self._held = _Held(token.text, asked, end - early, end - early * UNUSED_SHARE)
        return self._held

    def _ended(self, task: "asyncio.Task[_Held]") -> None:
        self._fetching = None
        error = None if task.cancelled() else task.exception()
        if isinstance(error, RequestError):
            self._error, self._rests_until = error, self._clock.monotonic() + REST_SECONDS
        else:
            self._error, self._rests_until = None, 0.0


class Bearer:
    """A `Credential` of tokens; `extra` are headers that go beside each."""

    def __init__(self, tokens: Tokens, extra: Callable[[], tuple[tuple[str, str], ...]] = tuple) -> None:
        self._tokens = tokens
        self._extra = extra

    async def headers(self, out: Outbound) -> tuple[tuple[str, str], ...]:
        """Return the header with a token that is good now."""
        del out
        return (("authorization", f"Bearer {await self._tokens.get()}"), *self._extra())

    def refused(self) -> None:
        """Drop the token."""
        self._tokens.refused()


class Unchanging:
    """A `Credential` that is always the same headers, or none beside those of the configuration."""

    def __init__(self, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self._headers = headers

    async def headers(self, out: Outbound) -> tuple[tuple[str, str], ...]:
        """Return them."""
        del out
        return self._headers

    def refused(self) -> None:
        """Keep them: there are no others."""


async def ask(transport: Transport, url: str, form: Mapping[str, str], now: float) -> Token:
    """Trade a form for a token at a token service; `now` is unix seconds.

    Raises what `Credential.headers` raises. No value of the form is in a message.
    """
    headers = (("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"))
    answer = await transport.post(
        url, headers=headers, body=urlencode(form).encode(), timeout=TOKEN_SECONDS, max_bytes=MAX_ANSWER_BYTES
    )
    told = _object(answer.body)
    if answer.status >= _ERROR:
        raise _refusal(url, answer, told, form, now)
    token, seconds = told.get("access_token"), told.get("expires_in")
    if isinstance(seconds, str) and seconds.isascii() and seconds.isdigit():  # some of Entra's endpoints
        seconds = int(seconds)
    plain = isinstance(token, str) and token.isascii() and token.isprintable() and token.strip() == token != ""
    if not plain or isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < SHORTEST_SECONDS:
        raise BadUpstreamResponse(f"the token service at {origin(url)} answered {answer.status} without a token")
    return Token(str(token), min(float(seconds), LONGEST_SECONDS))


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(url: str, answer: Response, told: Mapping[str, Any], form: Mapping[str, str], now: float) -> UpstreamError:
    code, words = told.get("error"), told.get("error_description")
    said = ": ".join(part for part in (code, words) if isinstance(part, str) and part)
    for value in form.values():
        if value not in {form.get("grant_type"), form.get("scope")}:
            said = said.replace(value, "***")
    own = answer.status in _OWN_STATUSES or answer.status >= _SERVER_ERROR
    return UpstreamError(
        f"the token service at {origin(url)} answered {answer.status}{': ' if said else ''}{said[:MAX_MESSAGE]}",
        status=answer.status if own else 401,
        code=code if isinstance(code, str) and code else None,
        kind=None if own else "authentication_error",
        retry_after=retry_after_seconds(answer.headers, now),
    )
