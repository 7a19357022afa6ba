"""The AsyncAPI 3.0 document of every topic and message, built from the wire models and the header names.

Imports schemas, the envelope's header names and topics. FastStream's own generator is not used: it describes neither
headers nor topic parameters, and on this wire the headers are half of the contract.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from broker.envelope import headers as h
from broker.topics import ALIAS_PATTERN, DELAYS_S, Lane, TopicNames, topic_specs
from schemas.error import ErrorBody
from schemas.request import BODIES, CHAT
from schemas.usage import UsageEvent

Json = dict[str, Any]

VERSION: Final = "3.0.0"
SCHEMAS: Final = "#/components/schemas/"


def _text(description: str, **more: object) -> Json:
    return {"type": "string", "description": description, **more}


def _number(description: str, **more: object) -> Json:
    # Header values are UTF-8 text on the wire, numbers included.
    return {"type": "string", "pattern": r"^\d+$", "description": description, **more}


REQUEST_HEADERS: Final[dict[str, Json]] = {
    h.REQUEST_ID: _text(
        "The caller's id, unique per request; the same id sent again is the same request. Absent: "
        "`<topic>-<partition>-<offset>`.",
        maxLength=256,
    ),
    h.ENDPOINT: _text("Path of the OpenAI endpoint the body belongs to.", enum=list(BODIES), default=CHAT),
    h.REPLY_TO: _text(
        "Topic of the reply; must start with the replies topic's name. Absent: no reply, the answer stays readable by "
        "request id."
    ),
    h.REPLY_PARTITION: _number("Partition of the reply topic."),
    h.AUTHORIZATION: _text("`Bearer <virtual key>`. Absent: the anonymous tenant, if the configuration allows one."),
    h.DEADLINE: _number("Unix milliseconds; work past it is never started. Absent: the alias's default."),
    h.PRIORITY: _text("0 (first) to 9, inside the lane.", pattern="^[0-9]$", default="5"),
    h.IDEMPOTENCY_KEY: _text("Requests of one tenant with the same key get one call and one answer.", maxLength=256),
    h.TAGS: _text("JSON object of strings; lands in the ledger.", contentMediaType="application/json"),
    h.METADATA: _text("JSON, echoed untouched in every reply record.", contentMediaType="application/json"),
    h.TRACEPARENT: _text("W3C trace context."),
    h.TRACESTATE: _text("W3C trace context."),
}
"""What a producer may set; none is required."""

SIGNED_HEADERS: Final[dict[str, Json]] = {
    h.ATTEMPT: _number("Attempts made so far."),
    h.VISITED: _text("Aliases tried, comma separated."),
    h.FIRST_SEEN: _number("Unix milliseconds at which the request was first produced."),
    h.NOT_BEFORE: _number("Unix milliseconds before which a parked request is not republished."),
    h.ORIGIN: _text("Where the record this one was made from stands: topic-partition-offset."),
    h.LAST_ERROR: _text("Failed tries, oldest first: `deployment status code`, separated by semicolons."),
    h.HOP: _number("How often the broker has republished the request."),
    h.STAMP: _number("Unix milliseconds of the first record, where its place became the request's id."),
    h.SIGNATURE: _text("HMAC-SHA256, hex, over the request id and these headers; without it they are ignored."),
    h.CALLER: _text("Stands for `authorization`: the key's SHA-256, hex, a colon, and its own HMAC over id and body."),
}
"""Written by the broker when it republishes a request."""

REPLY_HEADERS: Final[dict[str, Json]] = {
    h.REQUEST_ID: _text("Id of the request."),
    h.STATUS: _text("HTTP status as the OpenAI API would send it.", pattern="^[1-5][0-9][0-9]$"),
    h.FINAL: _text("Marks the one final record of a request.", const="1"),
    h.ALIAS: _text("The alias that was asked for."),
    h.SERVED_BY: _text("The deployment that answered; empty when none did."),
    h.MODEL: _text("The model the provider says it ran."),
    h.ATTEMPTS: _number("Attempts made."),
    h.FALLBACKS: _number("Reroutes to another alias."),
    h.COST: _text("Decimal USD; empty when unpriced."),
    h.QUEUE_MS: _number("Milliseconds from the record's timestamp to the first attempt."),
    h.UPSTREAM_MS: _number("Milliseconds of the last upstream call."),
    h.REPLAY_OF: _text("Id of the request whose call this answer is from, where no call was made for this one."),
    h.RETRY_AFTER: _text("Seconds, decimal; on 429 of the caller's own limit."),
    h.METADATA: REQUEST_HEADERS[h.METADATA],
}

CHUNK_HEADERS: Final[dict[str, Json]] = {
    h.REQUEST_ID: REPLY_HEADERS[h.REQUEST_ID],
    h.ATTEMPT: _number("Attempt the chunk belongs to; a reader drops chunks of an older one."),
    h.SEQ: _number("Position in the stream, from 0."),
    h.METADATA: REQUEST_HEADERS[h.METADATA],
}

DEAD_HEADERS: Final[dict[str, Json]] = {
    h.DEAD_REASON: _text("Why, for people."),
    h.DEAD_CODE: _text("Why, for programs: the error code of the reply."),
    h.DEAD_ORIGIN: _text("Where the original record stands: topic-partition-offset."),
    h.DEAD_AT: _number("Unix milliseconds."),
    h.DEAD_HOP: _number("The `hop` of a replay."),
    h.DEAD_SIGNATURE: _text("The `broker-signature` of a replay."),
}
"""Beside every header the original record carried but `authorization`, for which `caller` stands."""

TARGET_HEADER: Final[dict[str, Json]] = {h.TARGET: _text("Topic a parked request goes back to.")}
UNREADABLE_HEADER: Final[dict[str, Json]] = {
    h.UNREADABLE: _text("Why the original record could not be parsed; its value is then absent.")
}


class CancelControl(BaseModel):
    """Value of a cancel control; the record's key is the request id."""

    cancel: bool
    at: int
    """Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class _Message:
    """One kind of record. `payload` is a schema or the name of one in the components."""

    name: str
    title: str
    summary: str
    headers: Json
    payload: Json
    required: Sequence[str] = ()
    key: str | None = None

    def render(self) -> Json:
        headers: Json = {"type": "object", "properties": self.headers}
        if self.required:
            headers["required"] = list(self.required)
        message: Json = {
            "name": self.name,
            "title": self.title,
            "summary": self.summary,
            "contentType": "application/json",
            "headers": headers,
            "payload": self.payload,
        }
        if h.REQUEST_ID in self.headers:
            message["correlationId"] = {"location": f"$message.header#/{h.REQUEST_ID}"}
        if self.key is not None:
            message["bindings"] = {"kafka": {"key": _text(self.key)}}
        return message


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": SCHEMAS + model.__name__}


_ANY_REQUEST: Final[Json] = {"anyOf": [_ref(model) for model in BODIES.values()]}
_ANSWER: Final[Json] = {"type": "object", "description": "The provider's answer as an OpenAI body."}

MESSAGES: Final = (
    _Message(
        "request",
        "Inference request",
        "The JSON body of an OpenAI endpoint. No header is required: a body alone is a valid request.",
        REQUEST_HEADERS | SIGNED_HEADERS,
        _ANY_REQUEST,
        key="Free: it decides the partition and nothing else.",
    ),
    _Message(
        "parkedRequest",
        "Parked request",
        "A request that waits until `not-before`, then goes back to `target`.",
        REQUEST_HEADERS | SIGNED_HEADERS | TARGET_HEADER,
        _ANY_REQUEST,
        required=(h.REQUEST_ID, h.NOT_BEFORE, h.TARGET),
    ),
    _Message(
        "reply",
        "Final reply",
        "Exactly one per request: the provider's answer, or an error body. A duplicate after a crash is identical.",
        REPLY_HEADERS,
        {"anyOf": [_ANSWER, _ref(ErrorBody)]},
        required=(h.REQUEST_ID, h.STATUS, h.FINAL),
        key="The request id.",
    ),
    _Message(
        "chunk",
        "Chunk of a streamed reply",
        "The SSE `data:` JSON of one chunk or of a few; the final reply carries the whole completion all the same.",
        CHUNK_HEADERS,
        {"type": "object", "description": "A chunk as the OpenAI API streams it."},
        required=(h.REQUEST_ID, h.ATTEMPT, h.SEQ),
        key="The request id.",
    ),
    _Message(
        "deadLetter",
        "Dead letter",
        "A record that cannot be served: key, value and headers as they were, and why beside them.",
        REQUEST_HEADERS | SIGNED_HEADERS | UNREADABLE_HEADER | DEAD_HEADERS,
        {"description": "Whatever the original record held; it may be no JSON, or nothing."},
        required=(h.DEAD_REASON, h.DEAD_CODE, h.DEAD_ORIGIN, h.DEAD_AT),
    ),
    _Message("usage", "Usage event", "One attempt; a row of the ledger.", {}, _ref(UsageEvent), key="The request id."),
    _Message(
        "cancel",
        "Cancel",
        "Ends a request, queued or running, with status 499.",
        {},
        _ref(CancelControl),
        key="The request id.",
    ),
)


def document(  # noqa: PLR0913 - what an installation may differ in
    names: TopicNames,
    *,
    version: str,
    aliases: Iterable[str] = (),
    bootstrap_servers: str | None = None,
    secure: bool = False,
    max_message_bytes: int = 4 << 20,
) -> Json:
    """Return the document: a parameter that lists `aliases`, and the servers where `bootstrap_servers` names them.

    `secure` says that the servers speak TLS; `max_message_bytes` is the topics' limit.
    """
    found: Json = {
        "asyncapi": VERSION,
        "info": {
            "title": "Queue-native LLM inference broker",
            "version": version,
            "description": "OpenAI-format requests in Kafka topics, answers in reply topics. A record's value is "
            "exactly an OpenAI body, everything else is in its headers, UTF-8 text.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": _channels(names, sorted(aliases), max_message_bytes),
        "operations": _operations(),
        "components": {
            "schemas": _schemas(),
            "messages": {message.name: message.render() for message in MESSAGES},
        },
    }
    if bootstrap_servers:
        protocol = "kafka-secure" if secure else "kafka"
        hosts = [host.strip() for host in bootstrap_servers.split(",")]
        found["servers"] = {f"kafka{number}": {"host": host, "protocol": protocol} for number, host in enumerate(hosts)}
    return found


def _schemas() -> Json:
    models: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in BODIES.values()]
    models += [(model, "serialization") for model in (ErrorBody, UsageEvent, CancelControl)]
    _, generated = models_json_schema(models, ref_template=SCHEMAS + "{model}")
    schemas: Json = generated["$defs"]
    return schemas


def _channels(names: TopicNames, aliases: Sequence[str], max_message_bytes: int) -> Json:
    pattern = ALIAS_PATTERN.pattern
    alias: Json = {"description": f"What callers name as the model: `{pattern}`."}
    if aliases:
        alias["enum"] = list(aliases)
    example = aliases[0] if aliases else "alias"
    specs = {spec.name: spec for spec in topic_specs(names, [example], max_message_bytes=max_message_bytes)}

    def channel(topic: str, description: str, *messages: str) -> Json:
        spec = specs[topic]
        settings = dict(spec.settings)
        kafka: Json = {"partitions": spec.partitions, "topicConfiguration": _topic_configuration(settings)}
        return {
            "address": topic,
            "description": description,
            "messages": _messages(*messages),
            "bindings": {"kafka": kafka},
        }

    channels: Json = {}
    for lane, key, text in (
        (Lane.INTERACTIVE, "requests", "Interactive requests for a model alias."),
        (Lane.BATCH, "batch", "The batch lane: served from what interactive leaves over, never starved."),
    ):
        channels[key] = channel(names.lane(example, lane), text, "request")
        channels[key]["address"] = names.lane("{alias}", lane)
        channels[key]["parameters"] = {"alias": alias}
    channels["replies"] = channel(
        names.replies, "Replies; a client takes a partition of its own and names it in its requests.", "reply", "chunk"
    )
    channels["replyTo"] = {
        "address": None,
        "description": f"The topic a request names in {h.REPLY_TO}: {names.replies} or one whose name starts with it.",
        "messages": _messages("reply", "chunk"),
    }
    for suffix, seconds in DELAYS_S.items():
        text = f"Requests parked for {seconds} s; due times are in order."
        channels[_delay(suffix)] = channel(names.delay(suffix), text, "parkedRequest")
    channels["dead"] = channel(names.dead, "Dead letters.", "deadLetter")
    channels["usage"] = channel(names.usage, "One event per attempt.", "usage")
    channels["control"] = channel(names.control, "Compacted: the last control of a key counts.", "cancel")
    return channels


def _messages(*names: str) -> Json:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _topic_configuration(settings: dict[str, str]) -> Json:
    configuration: Json = {}
    for name, value in settings.items():
        if name == "cleanup.policy":
            configuration[name] = [value]
        else:
            configuration[name] = int(value)
    return configuration


def _delay(suffix: str) -> str:
    return f"delay{suffix}"


def _operations() -> Json:
    """What the broker does, not its clients: it receives requests and sends replies."""
    found: Json = {}

    def add(name: str, action: str, channel: str, summary: str, *messages: str) -> Json:
        operation = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": summary,
            "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"} for message in messages],
        }
        found[name] = operation
        return operation

    reply: Json = {
        "address": {"location": f"$message.header#/{h.REPLY_TO}", "description": "Where the request wants its reply."},
        "channel": {"$ref": "#/channels/replyTo"},
        "messages": [{"$ref": "#/channels/replyTo/messages/reply"}, {"$ref": "#/channels/replyTo/messages/chunk"}],
    }
    add("receiveRequest", "receive", "requests", "Serve an interactive request.", "request")["reply"] = reply
    add("receiveBatchRequest", "receive", "batch", "Serve a request of the batch lane.", "request")["reply"] = reply
    add("rerouteRequest", "send", "requests", "Send a request to a fallback alias.", "request")
    add("rerouteBatchRequest", "send", "batch", "Send a batch request to a fallback alias.", "request")
    add("sendReply", "send", "replies", "Answer, or stream.", "reply", "chunk")
    for suffix in DELAYS_S:
        channel = _delay(suffix)
        add(f"park{suffix}", "send", channel, "Let a request wait.", "parkedRequest")
        add(f"relay{suffix}", "receive", channel, "Republish a parked request when it is due.", "parkedRequest")
    add("sendDeadLetter", "send", "dead", "Keep what cannot be served.", "deadLetter")
    add("sendUsage", "send", "usage", "Tell of an attempt.", "usage")
    add("receiveUsage", "receive", "usage", "Write attempts to ClickHouse.", "usage")
    add("receiveControl", "receive", "control", "Cancel.", "cancel")
    return found
