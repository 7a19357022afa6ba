"""Record → Job → records the broker writes: a reply, a chunk, the same request again.

Nothing here raises for what a producer wrote: a record that cannot be used becomes a Job with a `problem`.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from pydantic import ValidationError

from broker.envelope import headers as h
from broker.errors import InvalidRequest, RequestError, Undecodable
from broker.records import OutRecord, Record
from broker.topics import Lane
from schemas.request import BODIES, CHAT

DEFAULT_PRIORITY: Final = 5
MAX_ID: Final = 256
"""Characters a request id or an idempotency key may have: they become parts of Redis keys."""

MAX_METADATA: Final = 65_536
MAX_TAGS: Final = 16_384
"""Bytes of the headers that every reply and every row repeats: they have to fit beside everything else."""

MAX_ATTEMPTS_LISTED: Final = 50

Pairs = list[tuple[str, bytes]]


@dataclass(slots=True)
class Job:
    """One request on its way. Times are unix milliseconds. `problem` is set where the record cannot be served."""

    record: Record = field(repr=False)
    alias: str
    lane: Lane
    request_id: str
    first_seen: int
    endpoint: str = CHAT
    body: dict[str, Any] = field(default_factory=dict, repr=False)
    reply_to: str | None = None
    reply_partition: int | None = None
    authorization: str | None = field(default=None, repr=False)
    caller: str | None = None
    """Hash of the caller's key, told by the broker that wrote this record; None where `authorization` tells it."""
    deadline: int | None = None
    priority: int = DEFAULT_PRIORITY
    idempotency_key: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    metadata: bytes | None = field(default=None, repr=False)
    traceparent: str | None = None
    attempt: int = 0
    """Attempts made before this record was written; the next one is `attempt + 1`."""
    visited: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    """`deployment status code` of every failed try, oldest first."""
    not_before: int | None = None
    hop: int = 0
    """How often the broker has republished it."""
    problem: RequestError | None = None
    stamp: int | None = None
    """When it was produced, where its id is the place of its first record; None where the producer named it."""

    @property
    def requested(self) -> str:
        """The alias the caller asked for, before any reroute."""
        return self.visited[0] if self.visited else self.alias

    @property
    def streams(self) -> bool:
        """Whether the caller wants chunks."""
        return self.body.get("stream") is True


class _Reader:
    """Takes headers apart and remembers the first thing that was wrong with them."""

    def __init__(self, record: Record) -> None:
        self._raw: dict[str, bytes | None] = dict(record.headers)
        self.problem: RequestError | None = None

    def blame(self, error: RequestError) -> None:
        # What cannot be decoded outranks what is merely wrong: it decides whether the record is dead-lettered.
        if self.problem is None or (isinstance(error, Undecodable) and not isinstance(self.problem, Undecodable)):
            self.problem = error

    def text(self, name: str) -> str | None:
        raw = self._raw.get(name)
        if not raw:
            return None
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.blame(Undecodable(f"header {name} is not UTF-8", param=name))
            return None

    def raw(self, name: str) -> bytes | None:
        return self._raw.get(name)

    def short(self, name: str, limit: int) -> bytes | None:
        raw = self._raw.get(name)
        if raw is None or len(raw) <= limit:
            return raw
        self.blame(InvalidRequest(f"header {name} has {len(raw)} bytes; at most {limit} are taken", param=name))
        return None

    def number(self, name: str, low: int, high: int) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        if text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high:  # noqa: PLR2004 - int64
            return int(text)
        self.blame(InvalidRequest(f"header {name} must be a whole number from {low} to {high}", param=name))
        return None

    def identifier(self, name: str) -> str | None:
        text = self.text(name)
        if text is None or (len(text) <= MAX_ID and text.isprintable()):
            return text
        self.blame(InvalidRequest(f"header {name} must be at most {MAX_ID} printable characters", param=name))
        return None


def open_record(  # noqa: PLR0913 - the record's place, and what it is judged by
    record: Record,
    *,
    alias: str,
    lane: Lane,
    replies_topic: str,
    secret: bytes,
    max_body_bytes: int,
) -> Job:
    """Turn a record into a Job; `job.problem` says what is wrong with it, and everything readable is filled in."""
    reader = _Reader(record)
    named = reader.identifier(h.REQUEST_ID)
    job = Job(record, alias, lane, named or f"{record.topic}-{record.partition}-{record.offset}", record.timestamp)
    if named is None:
        job.stamp = record.timestamp
    if record.headers:
        _read_headers(job, reader, replies_topic)
        _read_caller(job, reader, secret)
        if reader.raw(h.SIGNATURE) is not None:
            _read_signed(job, reader, secret)
    _read_body(job, reader, max_body_bytes)
    job.problem = reader.problem
    return job


def _read_headers(job: Job, reader: _Reader, replies_topic: str) -> None:
    job.endpoint = reader.text(h.ENDPOINT) or CHAT
    job.authorization = reader.text(h.AUTHORIZATION)
    job.deadline = reader.number(h.DEADLINE, 0, 2**53)
    priority = reader.number(h.PRIORITY, 0, 9)
    job.priority = DEFAULT_PRIORITY if priority is None else priority
    job.idempotency_key = reader.identifier(h.IDEMPOTENCY_KEY)
    job.metadata = reader.short(h.METADATA, MAX_METADATA)
    job.traceparent = reader.text(h.TRACEPARENT)
    tags = reader.short(h.TAGS, MAX_TAGS)
    if tags is not None:
        job.tags = _read_tags(tags, reader)
    reply_to = reader.text(h.REPLY_TO)
    if reply_to is not None and not reply_to.startswith(replies_topic):
        reader.blame(InvalidRequest(f"header reply-to must start with {replies_topic}", param=h.REPLY_TO))
    elif reply_to is not None:
        job.reply_to = reply_to
        job.reply_partition = reader.number(h.REPLY_PARTITION, 0, 1 << 20)


def _read_tags(raw: bytes, reader: _Reader) -> dict[str, str]:
    try:
        tags = orjson.loads(raw)
    except orjson.JSONDecodeError:
        tags = None
    if isinstance(tags, dict) and all(isinstance(value, str) for value in tags.values()):
        return tags
    reader.blame(InvalidRequest("header tags must be a JSON object of strings", param=h.TAGS))
    return {}


def _read_caller(job: Job, reader: _Reader, secret: bytes) -> None:
    raw = reader.raw(h.CALLER)
    if raw and job.authorization is None:
        job.caller = h.open_caller(secret, job.request_id, job.record.value, raw.decode(errors="replace"))


def sealed_caller(job: Job, secret: bytes) -> bytes | None:
    """Return the `caller` header of a record that is written instead of the job's; None for an anonymous request."""
    raw = dict(job.record.headers).get(h.AUTHORIZATION)
    caller = h.fingerprint(raw.decode("utf-8", "surrogateescape")) if raw else job.caller
    return None if caller is None else h.seal_caller(secret, job.request_id, job.record.value, caller).encode()


def is_key(name: str) -> bool:
    """Whether a header holds a virtual key, also where a producer wrote its name as HTTP does."""
    return name.lower() == h.AUTHORIZATION


def _read_signed(job: Job, reader: _Reader, secret: bytes) -> None:
    values = {name: text for name in h.SIGNED if (text := reader.text(name)) is not None}
    if not hmac.compare_digest(reader.raw(h.SIGNATURE) or b"", h.signature(secret, job.request_id, values).encode()):
        return  # from anyone else these headers mean nothing (wire.md)
    job.attempt = int(values.get(h.ATTEMPT, "0"))
    job.visited = tuple(alias for alias in values.get(h.VISITED, "").split(",") if alias)
    job.history = tuple(entry for entry in values.get(h.LAST_ERROR, "").split(";") if entry)
    job.first_seen = int(values.get(h.FIRST_SEEN) or job.first_seen)
    job.not_before = int(values[h.NOT_BEFORE]) if values.get(h.NOT_BEFORE) else None
    job.hop = int(values.get(h.HOP, "0"))
    job.stamp = int(values[h.STAMP]) if values.get(h.STAMP) else job.stamp


def _read_body(job: Job, reader: _Reader, max_body_bytes: int) -> None:
    record = job.record
    unreadable = reader.raw(h.UNREADABLE)
    value = record.value
    if unreadable is not None:
        reader.blame(Undecodable(f"the record cannot be read: {unreadable.decode(errors='replace')}"))
    elif value is None:
        reader.blame(Undecodable("the record has no value; it must be a JSON body"))
    elif len(value) > max_body_bytes:
        reader.blame(Undecodable(f"the body has {len(value)} bytes; at most {max_body_bytes} are served"))
    else:
        _parse_body(job, reader, value)
    if record.key is not None and not _is_utf8(record.key):
        reader.blame(Undecodable("the record's key is not UTF-8"))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parse_body(job: Job, reader: _Reader, value: bytes) -> None:
    shape = BODIES.get(job.endpoint)
    if shape is None:
        served = ", ".join(BODIES)
        reader.blame(InvalidRequest(f"endpoint {job.endpoint} is not served; these are: {served}", param=h.ENDPOINT))
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        reader.blame(Undecodable(f"the body is not JSON: {error}"))
        return
    if not isinstance(body, dict):
        reader.blame(Undecodable(f"the body must be a JSON object, not {type(body).__name__}"))
        return
    job.body = body
    if shape is None:
        return
    try:
        shape.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        reader.blame(InvalidRequest(f"{path}: {first['msg']}", param=path))


def encode_again(  # noqa: PLR0913 - what changes when a request is republished
    job: Job,
    topic: str,
    *,
    secret: bytes,
    visited: Sequence[str],
    not_before: int | None = None,
    target: str | None = None,
) -> OutRecord:
    """Write a job's record again for another topic: the broker's own headers signed, everything else untouched.

    Only the virtual key is not written again: `caller` stands for it.
    """
    record = job.record
    values = {
        h.ATTEMPT: str(job.attempt),
        h.VISITED: ",".join(visited),
        h.FIRST_SEEN: str(job.first_seen),
        h.ORIGIN: f"{record.topic}-{record.partition}-{record.offset}",
        h.LAST_ERROR: ";".join(job.history[-MAX_ATTEMPTS_LISTED:]),
        h.HOP: str(job.hop + 1),
    }
    if job.stamp is not None:
        values[h.STAMP] = str(job.stamp)
    if not_before is not None:
        values[h.NOT_BEFORE] = str(not_before)
    ours = {*h.SIGNED, h.SIGNATURE, h.REQUEST_ID, h.TARGET, h.CALLER}
    pairs: Pairs = [(name, value) for name, value in record.headers if name not in ours and not is_key(name)]
    pairs.append((h.REQUEST_ID, job.request_id.encode()))
    pairs += [(name, text.encode()) for name, text in values.items()]
    pairs.append((h.SIGNATURE, h.signature(secret, job.request_id, values).encode()))
    caller = sealed_caller(job, secret)
    if caller is not None:
        pairs.append((h.CALLER, caller))
    if target is not None:
        pairs.append((h.TARGET, target.encode()))
    return OutRecord(topic, record.value, record.key, pairs)


def encode_chunk(job: Job, *, seq: int, attempt: int, value: bytes) -> OutRecord:
    """Write one record of a stream. The job must have a `reply_to`."""
    pairs: Pairs = [
        (h.REQUEST_ID, job.request_id.encode()),
        (h.ATTEMPT, b"%d" % attempt),
        (h.SEQ, b"%d" % seq),
    ]
    if job.metadata is not None:
        pairs.append((h.METADATA, job.metadata))
    return OutRecord(job.reply_to or "", value, job.request_id.encode(), pairs, job.reply_partition)


def encode_reply(job: Job, body: bytes, reply_headers: Mapping[str, str]) -> OutRecord | None:
    """Write the final reply; None where the caller wants none."""
    if job.reply_to is None:
        return None
    pairs: Pairs = [(name, value.encode()) for name, value in reply_headers.items()]
    if job.metadata is not None:
        pairs.append((h.METADATA, job.metadata))
    return OutRecord(job.reply_to, body, job.request_id.encode(), pairs, job.reply_partition)
