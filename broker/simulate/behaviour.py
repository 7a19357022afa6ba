"""What was asked of the simulator: pace, limits, faults. Data only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

FAULTS: Final[Mapping[str, str]] = {
    "429": "the provider's rate limit error, with its headers",
    "500": "its internal error",
    "503": "its error for being unavailable",
    "529": "Anthropic's overloaded error; others send their nearest",
    "drop": "the connection closes without a byte",
    "cut": "the connection closes in the middle of the body or of the stream",
    "hang": "nothing comes, and the connection stays open",
    "slow": "the first byte comes after --slow seconds",
    "html": "a web page with status 200",
    "truncated": "half of the JSON, correctly framed; a stream that ends before its end",
    "sse_in_json": "a stream where JSON was asked for, JSON where a stream was",
    "error_event": "an error event in the middle of a stream, 500 where none was asked for",
    "auth": "401 or 403, as for a wrong key",
    "not_found": "404, as for an unknown model",
    "context_length": "the provider's error for a prompt that is too long",
    "content_policy": "its error or its answer for a prompt against its policy",
    "insufficient_quota": "its error for an account without credit",
    "refusal": "an answer in which the model declines",
}
"""Fault → what the caller sees. Any other status from 400 to 599 is a fault as well."""
FREE: Final = frozenset({"html", "auth", "not_found", "context_length", "content_policy", "insufficient_quota"})
"""Faults that a provider does not bill; a status is none either."""
MINUTE_S: Final = 60.0
ERROR_SECONDS: Final = 0.1
"""An error comes after so long, or after the latency where that is less: a provider refuses faster than it answers."""


def is_fault(kind: str) -> bool:
    """Whether the simulator knows a fault."""
    return kind in FAULTS or (kind.isdigit() and 400 <= int(kind) <= 599)  # noqa: PLR2004 - the statuses of errors


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What was asked for on the command line. Times are seconds; None is without a bound."""

    latency: tuple[float, float] = (0.0, 0.0)
    """Seconds to the first byte: each call takes a time between the two."""
    tokens_per_second: float | None = None
    """Of a stream, or of the whole answer where it is not streamed; None for at once."""
    output_tokens: int = 16
    rpm: int | None = None
    tpm: int | None = None
    """Requests and tokens a minute, for each API and model."""
    window: float = MINUTE_S
    """Seconds over which a limit is counted: 30 a minute over 6 s lets 3 in at once."""
    faults: Mapping[str, float] = field(default_factory=dict)
    """Fault → part of the calls it meets."""
    model_faults: Sequence[tuple[str, str]] = ()
    """Model, `*` and `?` allowed, and the fault that all its calls meet."""
    script: Sequence[str] = ()
    """Faults of the calls in turn, again from the first after the last; `ok` is none."""
    slow: float = 5.0
    models: Sequence[str] = ()
    """Models there are, `*` and `?` allowed; every one where none is named."""
    context_window: int | None = None
    numbered: bool = False
    """Each answer names its call's `x-request-id` and a number of its own."""
    seed: int = 0

    def allowed(self, a_minute: int) -> int:
        """Return how much of a limit fits into its window, at least one."""
        return max(1, round(a_minute * self.window / MINUTE_S))

    def has_model(self, model: str) -> bool:
        """Whether there is such a model."""
        return not self.models or any(fnmatchcase(model, known) for known in self.models)
