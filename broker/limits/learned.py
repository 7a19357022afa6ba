"""What a provider's answer tells of its limits: `x-ratelimit-*`, `anthropic-ratelimit-*`. Pure; never raises.

OpenAI's headers (platform.openai.com, "Rate limits"), used by most that speak its dialect: limit, remaining and reset
of requests and tokens, resets as durations (`1s`, `6m0s`, `20ms`). Anthropic's (docs, "Rate limits"): the same words
after `anthropic-ratelimit-`, input and output tokens apart, resets as RFC 3339 times.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from broker.limits.terms import Learned

KINDS: Final = {"requests": "rpm", "tokens": "tpm", "input-tokens": "itpm", "output-tokens": "otpm"}
A_DAY_FROM: Final = 3600.0
"""Seconds of a reset from which the window is taken for a day's; a minute's resets within it."""
OF_A_DAY: Final = {"rpm": "rpd", "tpm": "tpd"}
LARGEST: Final = 10**12

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def learn(headers: Mapping[str, str], now_ms: int) -> Learned | None:
    """Return what `headers`, names in lower case, tell of the limits; None where they tell nothing."""
    limits: dict[str, int] = {}
    left: dict[str, int] = {}
    reset: dict[str, float] = {}
    for word, minute in KINDS.items():
        told = [_told(headers, word, part) for part in ("limit", "remaining", "reset")]
        seconds = _seconds(told[2], now_ms)
        name = OF_A_DAY.get(minute, minute) if seconds is not None and seconds > A_DAY_FROM else minute
        limit, remaining = _whole(told[0]), _whole(told[1])
        if limit is not None and limit > 0:
            limits[name] = limit
        if remaining is not None and seconds is not None and limit is not None:
            left[name], reset[name] = remaining, seconds
    return Learned(limits, left, reset) if limits else None


def _told(headers: Mapping[str, str], word: str, part: str) -> str | None:
    return headers.get(f"x-ratelimit-{part}-{word}") or headers.get(f"anthropic-ratelimit-{word}-{part}")


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    with suppress(ValueError, OverflowError):
        number = int(float(text.strip()))
        return number if 0 <= number <= LARGEST else None
    return None


def _seconds(text: str | None, now_ms: int) -> float | None:
    """Read a duration, a number of seconds or a time; None for what is none of them."""
    if text is None:
        return None
    text = text.strip()
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    with suppress(ValueError, OverflowError):
        return max(0.0, float(text)) if float(text) < LARGEST else None
    with suppress(ValueError, OverflowError):
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return max(0.0, at.timestamp() - now_ms / 1000)
    return None
