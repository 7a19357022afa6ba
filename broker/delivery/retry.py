"""What follows a failed try: one pure function from a situation to a decision that the loop carries out.

The rules are those of delivery.md, "Retry, reroute, park, dead letter", and of the bold sentence of limits.md: a caller
never sees a 429 because a provider is busy; it waits, until its deadline. Imports errors and configuration models.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from broker.config import Alias
from broker.errors import (
    DEPLOYMENT_FAULTS,
    ContentPolicyViolation,
    ContextLengthExceeded,
    DeadlineExceeded,
    InternalError,
    RateLimitExceeded,
    RequestError,
    UpstreamError,
)

FIRST_BACKOFF: Final = 0.5
"""Seconds before the first repetition; doubles with every further try (delivery.md)."""

MAX_BACKOFF: Final = 8.0
"""Seconds the back-off grows to (delivery.md)."""

MAX_IN_MEMORY: Final = 30.0
"""Seconds a request may wait inside the worker; a longer wait is parked on a delay topic (delivery.md)."""

MAX_RETRY_AFTER: Final = 86_400.0
"""Seconds of a Retry-After that are believed: a day, the longest quota window of the providers."""

MAX_REROUTES: Final = 5
"""Aliases the `visited` header may name: no request is rerouted more often (delivery.md)."""

BUSY: Final = 429

OWN_ERRORS: Final = (RateLimitExceeded, DeadlineExceeded, InternalError)
"""Errors of the caller or of ours whose statuses look retriable: no deployment would answer otherwise."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The call gave a good answer."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again in this alias after `after` seconds, waiting in memory without a permit; 0 is at once, elsewhere."""

    after: float


@dataclass(frozen=True, slots=True)
class Reroute:
    """Republish to `alias`; `reason` is the code of the error that led there."""

    alias: str
    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """Put on a delay topic until `until_ms`, unix milliseconds."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """End the request with `error` as its reply."""

    error: RequestError


@dataclass(frozen=True, slots=True)
class Dead:
    """End the request with `error` as its reply, and keep the record as a dead letter because of `reason`."""

    reason: str
    error: RequestError


Serves = Callable[[str], bool]
"""Whether an alias of this name can serve the request, as far as can be told before a call."""

Decision = Answered | Retry | Reroute | Park | Refuse | Dead


@dataclass(frozen=True, slots=True)
class Situation:
    """A try has failed. Times in `_ms` are unix milliseconds.

    `tries` counts those made in `alias`, the failed one included, and those before a park too. `visited` names the
    aliases tried before this one. `other_deployment`: one that this request has not tried could be called now.
    `wait_for_deployment`: seconds until any deployment of the alias can be called; `math.inf` where only the release of
    a slot will tell. `delivered`: a part of the answer went to the reader, as chunks of a stream.
    """

    error: RequestError
    tries: int
    now_ms: int
    deadline_ms: int | None
    alias: str
    visited: tuple[str, ...]
    other_deployment: bool
    wait_for_deployment: float
    delivered: bool = False

    @property
    def left(self) -> float:
        """Seconds to the deadline; `math.inf` without one."""
        return math.inf if self.deadline_ms is None else (self.deadline_ms - self.now_ms) / 1000


def decide(  # noqa: PLR0913, PLR0917 - all that a decision depends on
    alias: Alias,
    default_fallbacks: tuple[str, ...],
    situation: Situation,
    jitter: float,
    own_fallbacks: tuple[str, ...] | None = None,
    serves: Serves | None = None,
) -> Retry | Reroute | Park | Refuse:
    """Decide what follows the failed try that `situation` describes.

    `jitter`, in [0, 1), spreads waits: they grow by up to a quarter of the back-off. `own_fallbacks` are those the
    request names; they replace those of every kind, and an empty tuple means none. With `serves`, fallbacks that cannot
    serve the request are passed over.
    """
    error = situation.error
    if situation.delivered:
        # Another call would tell the reader something else from the beginning, and cost a second answer.
        return Refuse(error)
    fallbacks = _fallbacks(alias, default_fallbacks, error, own_fallbacks)
    fallback = _first_unvisited(fallbacks, situation.visited, situation.alias, serves)
    if isinstance(error, (ContextLengthExceeded, ContentPolicyViolation)):
        return _elsewhere_or(error, fallback, situation)
    if isinstance(error, UpstreamError) and error.fault in DEPLOYMENT_FAULTS:
        if situation.other_deployment and situation.left > 0 and situation.tries <= _most_retries(alias):
            return Retry(0.0)
        return _elsewhere_or(error, fallback, situation)
    if not error.retriable or isinstance(error, OWN_ERRORS):
        return Refuse(error)
    return _repeat(alias, situation, fallback, jitter)


def decide_uncalled(  # noqa: PLR0913, PLR0917 - all that a decision depends on
    alias: Alias,
    default_fallbacks: tuple[str, ...],
    error: RequestError,
    visited: tuple[str, ...],
    own_fallbacks: tuple[str, ...] | None = None,
    serves: Serves | None = None,
) -> Reroute | Refuse:
    """Decide for a request that no deployment of `alias` can serve, as `error` says, so that none is called.

    An input that is too long goes to a fallback for that, else, as for anything else a model cannot do, to a fallback
    for errors; those that cannot serve it either are passed over. The rest is as in `decide`.
    """
    fallbacks = _fallbacks(alias, default_fallbacks, error, own_fallbacks)
    if own_fallbacks is None and isinstance(error, ContextLengthExceeded):
        fallbacks += alias.fallbacks or default_fallbacks
    fallback = _first_unvisited(fallbacks, visited, alias.name, serves)
    return Refuse(error) if fallback is None else Reroute(fallback, error.code)


def _repeat(alias: Alias, situation: Situation, fallback: str | None, jitter: float) -> Retry | Reroute | Park | Refuse:
    error = situation.error
    if situation.left <= 0:
        return Refuse(_too_late(error))
    if situation.tries <= alias.num_retries:
        return _again(situation, fallback, jitter)
    if fallback is not None:
        return Reroute(fallback, error.code)
    return _again_while_busy(alias, situation, jitter) if error.status == BUSY else Refuse(error)


def _fallbacks(
    alias: Alias, default_fallbacks: tuple[str, ...], error: RequestError, own: tuple[str, ...] | None
) -> tuple[str, ...]:
    if own is not None:
        return own
    if isinstance(error, ContextLengthExceeded):
        return alias.context_window_fallbacks
    if isinstance(error, ContentPolicyViolation):
        return alias.content_policy_fallbacks
    return alias.fallbacks or default_fallbacks


def _first_unvisited(
    fallbacks: tuple[str, ...], visited: tuple[str, ...], alias: str, serves: Serves | None
) -> str | None:
    seen = {*visited, alias}
    if len(seen) > MAX_REROUTES:
        return None
    return next((name for name in fallbacks if name not in seen and (serves is None or serves(name))), None)


def _elsewhere_or(error: RequestError, fallback: str | None, situation: Situation) -> Reroute | Refuse:
    if fallback is None or situation.left <= 0:
        return Refuse(error)
    return Reroute(fallback, error.code)


def _most_retries(alias: Alias) -> int:
    """Repetitions at once: a deployment whose credential is wrong costs no more than one each."""
    return max(alias.num_retries, len(alias.deployments) - 1)


def _again(situation: Situation, fallback: str | None, jitter: float) -> Retry | Reroute | Park | Refuse:
    if situation.other_deployment:
        return Retry(0.0)
    if fallback is not None and situation.left <= situation.wait_for_deployment < math.inf:
        return Reroute(fallback, situation.error.code)
    wait = _wait(situation, jitter)
    if wait < situation.left:
        return _wait_for(wait, situation)
    return Refuse(_too_late(situation.error)) if fallback is None else Reroute(fallback, situation.error.code)


def _again_while_busy(alias: Alias, situation: Situation, jitter: float) -> Retry | Park | Refuse:
    """Wait on: limits.md promises that a busy provider is never the caller's 429.

    So `num_retries` bounds every error but this one, whose bound is the deadline. The wait never falls below the first
    back-off, whatever the upstream asks for, or the last seconds before a deadline would be spent hammering it.
    """
    if situation.other_deployment and situation.tries <= _most_retries(alias):
        return Retry(0.0)
    wait = max(FIRST_BACKOFF, _wait(situation, jitter))
    return _wait_for(wait, situation) if wait < situation.left else Refuse(_too_late(situation.error))


def _wait(situation: Situation, jitter: float) -> float:
    """Seconds to wait: what the upstream or our own cool-down asks for, else the back-off; always a finite number.

    What is asked for is clamped to half of what is left to the deadline, so that one more try fits; the halving ends at
    the first back-off.
    """
    backoff = min(MAX_BACKOFF, FIRST_BACKOFF * 2.0 ** min(max(situation.tries - 1, 0), 10))
    told = situation.error.retry_after
    asked = min(told, MAX_RETRY_AFTER) if told is not None and told > 0 else backoff
    if situation.wait_for_deployment < math.inf:
        asked = max(asked, situation.wait_for_deployment)
    wait = asked + jitter * min(asked, MAX_BACKOFF) / 4
    return wait if asked == backoff else min(wait, max(situation.left / 2, FIRST_BACKOFF))


def _wait_for(wait: float, situation: Situation) -> Retry | Park:
    return Retry(wait) if wait <= MAX_IN_MEMORY else Park(situation.now_ms + math.ceil(wait * 1000))


def _too_late(error: RequestError) -> DeadlineExceeded:
    return DeadlineExceeded(f"the deadline leaves no time for another try; the last one ended with: {error.message}")
