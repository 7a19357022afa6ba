"""Record → dead letter and back: the original record but for its virtual key, and why it is dead in headers."""

from dataclasses import dataclass, field
from typing import Final

from broker.envelope import headers as h
from broker.envelope.job import MAX_ID, Job, is_key
from broker.records import OutRecord, Record

DEAD_HEADERS: Final = frozenset({h.DEAD_REASON, h.DEAD_CODE, h.DEAD_ORIGIN, h.DEAD_AT, h.DEAD_HOP, h.DEAD_SIGNATURE})
NOT_REPLAYED: Final = DEAD_HEADERS | {h.UNREADABLE, h.SIGNATURE, h.TARGET, *h.SIGNED}
"""A replayed request starts afresh: no attempts counted, no alias visited, no time to wait for."""

MAX_REASON: Final = 1000
"""Characters of a reason; with the other three headers a dead letter stays within 2 KiB of the original's size."""


def dead_letter(  # noqa: PLR0913 - what is dead, why, when, and whether it fits
    record: Record,
    reason: str,
    code: str,
    now_ms: int,
    topic: str,
    *,
    keep_value: bool = True,
    caller: bytes | None = None,
    hop: tuple[int, str] | None = None,
) -> OutRecord:
    """Write `record` for the dead-letter `topic`: key, value and headers as they were, the reason beside them.

    Its `authorization` alone is left out: no key is written into a topic by us. `caller` is what stands for it, as
    `sealed_caller` makes it, and lets a replay be served as the same caller's. `hop` is the replay's, with its
    signature as `replay_hop` makes it; without one the record's own broker headers stay good in a replay.

    With `keep_value=False` the value is left out, for a record the log refuses as too large: `dead-origin` tells where
    the original stands for as long as its own topic keeps it.
    """
    dropped = DEAD_HEADERS if caller is None else DEAD_HEADERS | {h.CALLER}
    pairs = [(name, value) for name, value in record.headers if name not in dropped and not is_key(name)]
    pairs += [] if caller is None else [(h.CALLER, caller)]
    pairs += [
        (h.DEAD_REASON, reason[:MAX_REASON].encode(errors="replace")),
        (h.DEAD_CODE, code.encode(errors="replace")),
        (h.DEAD_ORIGIN, f"{record.topic}-{record.partition}-{record.offset}".encode()),
        (h.DEAD_AT, b"%d" % now_ms),
    ]
    if hop is not None:
        pairs += [(h.DEAD_HOP, b"%d" % hop[0]), (h.DEAD_SIGNATURE, hop[1].encode())]
    return OutRecord(topic, record.value if keep_value else None, record.key, pairs)


def replay_hop(job: Job, secret: bytes) -> tuple[int, str]:
    """Return the hop a replay of the job has to have, and its signature."""
    hop = job.hop + 1
    return hop, h.signature(secret, job.request_id, {h.HOP: str(hop)})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it is read. `at` is unix milliseconds; `origin` is where the original record stands."""

    record: Record = field(repr=False)
    request_id: str
    reason: str
    code: str
    origin_topic: str
    origin: str
    at: int

    @property
    def target(self) -> str:
        """The topic a parked request was to go back to; empty for other records."""
        return (dict(self.record.headers).get(h.TARGET) or b"").decode(errors="replace")

    @property
    def deadline(self) -> int | None:
        """The caller's deadline, unix milliseconds."""
        text = (dict(self.record.headers).get(h.DEADLINE) or b"").decode(errors="replace")
        return int(text) if text.isascii() and text.isdigit() else None

    def replayed(self, topic: str, deadline: int | None = None) -> OutRecord:
        """Write the record for `topic` again, under the request id it had, with a new deadline where one is given."""
        raw = dict(self.record.headers)
        hop, signature = raw.get(h.DEAD_HOP), raw.get(h.DEAD_SIGNATURE)
        dropped = {h.REQUEST_ID} if deadline is None else {h.REQUEST_ID, h.DEADLINE}
        dropped |= NOT_REPLAYED if hop else DEAD_HEADERS | {h.UNREADABLE, h.TARGET}
        pairs = [(name, value) for name, value in self.record.headers if name not in dropped]
        if hop and signature:
            pairs += [(h.HOP, hop), (h.SIGNATURE, signature)]
        pairs.append((h.REQUEST_ID, self.request_id.encode()))
        if deadline is not None:
            pairs.append((h.DEADLINE, b"%d" % deadline))
        return OutRecord(topic, self.record.value, self.record.key, pairs)


def _identifier(raw: bytes | None) -> str | None:
    # The same rule as the envelope's: an id that cannot be one was never the request's id.
    text = (raw or b"").decode(errors="surrogateescape")
    return text if 0 < len(text) <= MAX_ID and text.isprintable() else None


def read_dead(record: Record) -> DeadLetter | None:
    """Read a record of the dead-letter topic; None for a record that tells no origin."""
    raw = dict(record.headers)

    def text(name: str) -> str:
        return (raw.get(name) or b"").decode(errors="replace")

    origin = text(h.DEAD_ORIGIN)
    topic, _, place = origin.rpartition("-")
    topic, _, partition = topic.rpartition("-")
    if not (topic and partition.isdigit() and place.isdigit()):
        return None
    at = text(h.DEAD_AT)
    return DeadLetter(
        record,
        request_id=_identifier(raw.get(h.REQUEST_ID)) or origin,
        reason=text(h.DEAD_REASON),
        code=text(h.DEAD_CODE),
        origin_topic=topic,
        origin=origin,
        at=int(at) if at.isascii() and at.isdigit() else record.timestamp,
    )
