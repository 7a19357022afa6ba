"""Pieces of a ledger row and of the words about an attempt: when it ran, what it used, how its headers tell of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from broker.config import Deployment
from broker.errors import RequestError
from broker.ledger.attempt import Attempt
from workers.providers.base import Usage


@dataclass(slots=True)
class Timing:
    """When one upstream call ran, unix milliseconds."""

    started: int
    finished: int
    unsent: bool = False
    """Whether it ended before anything went out to the provider, which then has nothing to charge."""

    @property
    def took(self) -> int:
        """Milliseconds from connecting to the last byte."""
        return max(0, self.finished - self.started)


def fill_usage(event: Attempt, usage: Usage) -> None:
    """Write tokens, and the usage as the provider told it, into a row."""
    event.input_tokens = usage.input_tokens
    event.cached_tokens = usage.cached_tokens
    event.cache_write_tokens = usage.cache_write_tokens
    event.output_tokens = usage.output_tokens
    event.reasoning_tokens = usage.reasoning_tokens
    event.audio_tokens = usage.audio_tokens
    event.estimated = usage.estimated
    if usage.units is not None:
        # Counted here and in no usage of the provider's: without it a row could not be priced again.
        event.raw_usage = orjson.dumps({**(usage.raw or {}), "counted": usage.units.told()}).decode()
    elif usage.raw is not None:
        event.raw_usage = orjson.dumps(usage.raw).decode()


def word(text: str) -> str:
    """Return `text` as one word of the `last-error` header: an upstream's own code may hold anything."""
    return "".join(c if c.isprintable() and c not in " ;" else "_" for c in text) or "_"


def note(deployment: Deployment, error: RequestError) -> str:
    """Return the entry of a failed attempt in the `last-error` header."""
    return f"{word(deployment.name)} {error.status} {word(error.code)}"


def entry_of(noted: str) -> Mapping[str, str | int]:
    """Return such an entry as an error reply lists it."""
    deployment, status, code = noted.split(" ", 2)
    return {"deployment": deployment, "status": int(status), "code": code}


def trace_id(traceparent: str | None) -> str:
    """Return the trace id of a `traceparent` header; empty where there is none."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 else ""  # noqa: PLR2004 - version, trace id, span id, flags (W3C)
