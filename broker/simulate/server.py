"""Serves the simulated APIs on one port.

`GET /-/stats` tells what was seen, `GET /-/totals` the same without each request; `POST /-/script` takes a list of
faults for the next calls.
"""

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import orjson

from broker.simulate import catalog
from broker.simulate.answers import compose
from broker.simulate.api import JSON, Api, Failure, Job, Refused, Route, Sent
from broker.simulate.behaviour import ERROR_SECONDS, FAULTS, Behaviour, is_fault
from broker.simulate.connection import Connection, Play, chunk, head
from broker.simulate.desk import Call, Desk
from broker.simulate.samples import tokens_of
from broker.simulate.shapes import Wrong

MALFORMED: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError)
PAGE: Final = b"<!doctype html><html><body><h1>Bad gateway</h1></body></html>"
EVENTS_BEFORE_A_FAULT: Final = 2
NAMED: Final[Mapping[str, tuple[str, str]]] = {
    "auth": ("auth", "simulated: the key is not valid"),
    "not_found": ("model", "simulated: there is no such model"),
    "content_policy": ("policy", "simulated: against the content policy"),
    "insufficient_quota": ("quota", "simulated: the account has no credit"),
    "error_event": ("server", "simulated: the answer broke off"),
    "429": ("rate", "simulated: rate limit reached"),
    "503": ("unavailable", "simulated: unavailable"),
    "529": ("overloaded", "Overloaded"),
}
"""Fault → why the API says it refuses, and the message where the API has none of its own."""
WAIT_S: Final = 1.0
"""What a 429 by fault tells its caller to wait."""
Pieces = Iterator[tuple[float, bytes]]


class Simulator:
    """Answers requests and counts them."""

    def __init__(
        self, behaviour: Behaviour, now: Callable[[], float] = time.monotonic, unix: Callable[[], float] = time.time
    ) -> None:
        self.desk = Desk(behaviour, now, unix)
        self._pace = 1 / behaviour.tokens_per_second if behaviour.tokens_per_second else 0.0

    def play(self, sent: Sent) -> Play:
        """Return how a request is answered."""
        if sent.path.startswith("/-/"):
            return Play(_whole(200, {"content-type": JSON}, self._own(sent)))
        try:
            route, names = catalog.find(sent.method, sent.path)
        except Refused as refused:
            return _failed(Failure(refused.status, {"error": {"message": refused.message}}), {})
        route = route if route.whose is None else route.whose(sent)
        api, identity = route.api, sent.headers.get("x-request-id", "")
        try:
            job = _checked(route, Sent(sent.method, sent.target, sent.headers, sent.raw, names))
            self._fits(api, job)
        except Refused as refused:
            self.desk.refused(api.name, identity, refused.status)
            return _failed(api.fail(refused), api.identify(uuid.uuid4().hex[:24]))
        call = self.desk.decide(api.name, identity, job.wanted)
        self.desk.began()
        try:
            play = self._answer(api, job, call)
        except MALFORMED as error:  # a schema that nothing fits is found when it is to be filled
            call.fault = "400"
            told = api.fail(Refused(f"the request is malformed: {type(error).__name__}"))
            play = _failed(told, api.identify(call.plan.identity))
        play.ended = lambda cut: self.desk.ended(call, cut=cut)
        return play

    def _own(self, sent: Sent) -> bytes:
        if sent.path == "/-/script" and sent.method == "POST":
            faults = [str(fault) for fault in orjson.loads(sent.raw)]
            unknown = [fault for fault in faults if fault != "ok" and not is_fault(fault)]
            if unknown:
                return orjson.dumps({"unknown": unknown, "known": list(FAULTS)})
            self.desk.script(faults)
            return orjson.dumps({"scripted": len(faults)})
        return orjson.dumps(self.desk.totals() if sent.path == "/-/totals" else self.desk.stats())

    def _fits(self, api: Api, job: Job) -> None:
        behaviour, wanted = self.desk.behaviour, job.wanted
        if not behaviour.has_model(wanted.model):
            message = api.words.get("model", "The model `{model}` does not exist or you do not have access to it.")
            raise Refused(message.format(model=wanted.model), "model")
        window = behaviour.context_window
        if window is not None:
            tokens = tokens_of(wanted.prompt)
            if tokens > window:
                raise api.context(tokens, window)
            if api.crowded is not None and tokens + (wanted.most or 0) > window and wanted.generates:
                raise api.crowded(tokens, wanted.most or 0, window)

    def _answer(self, api: Api, job: Job, call: Call) -> Play:
        fault, headers = call.fault, {**api.identify(call.plan.identity), **api.limits(call.limits)}
        early = min(call.latency, ERROR_SECONDS)
        if call.limits.wait > 0:
            refused = Refused(_words(api, "rate", "Rate limit reached."), "rate", wait=call.limits.wait)
            return _failed(api.fail(refused), headers, early)
        failure = None if fault is None else self._failure(api, job, fault)
        if failure is not None:
            return _failed(failure, headers, early)
        if fault == "hang":
            return Play(iter(()), hangs=True)
        if fault == "drop":
            return Play(iter([(call.latency, b"")]), close=True)
        if fault == "html":
            return Play(_after(early, _whole(200, {"content-type": "text/html"}, PAGE)))
        latency = call.latency + (self.desk.behaviour.slow if fault == "slow" else 0.0)
        streams = job.wanted.streams and job.events is not None
        if fault == "sse_in_json" and job.events is not None:
            streams = not streams
        pieces = self._streamed(api, job, call, headers) if streams else self._plain(job, call, headers)
        return Play(_after(latency, pieces), close=fault == "cut")

    def _failure(self, api: Api, job: Job, fault: str) -> Failure | None:
        """Return the error a fault is answered with at once; None where it is none."""
        if fault == "context_length":
            tokens = tokens_of(job.wanted.prompt)
            return api.fail(api.context(tokens, tokens - 1))
        if fault == "error_event" and job.wanted.streams:
            return None
        if fault == "content_policy" and api.policy_is_an_answer and job.wanted.generates:
            return None
        if fault in NAMED:
            reason, message = NAMED[fault]
            model = _words(api, reason, message).replace("{model}", job.wanted.model)
            return api.fail(Refused(model, reason, wait=WAIT_S if reason == "rate" else 0.0))
        if fault.isdigit():
            return api.fail(Refused(f"simulated {fault}", "server", status=int(fault)))
        return None

    def _plain(self, job: Job, call: Call, headers: Mapping[str, str]) -> Pieces:
        answer = compose(job.wanted, call.plan)
        body = job.whole(answer)
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        told = {"content-type": job.media, **headers, **job.headers(answer)}
        if call.fault == "cut":
            pieces: Pieces = iter([(0.0, head(200, told, len(raw)) + raw[: len(raw) // 2])])
        else:
            pieces = _whole(200, told, raw[: len(raw) // 2] if call.fault == "truncated" else raw)
        return _after(self._pace * answer.output_tokens if job.wanted.generates else 0.0, pieces)

    def _streamed(self, api: Api, job: Job, call: Call, headers: Mapping[str, str]) -> Pieces:
        answer = compose(job.wanted, call.plan)
        opening = head(200, {"content-type": job.stream_media, **headers, **job.headers(answer)}, None)
        events = [] if job.events is None else [chunk(event) for event in job.events(answer)]
        if call.fault in {"cut", "truncated", "error_event"}:
            del events[EVENTS_BEFORE_A_FAULT:]
        if call.fault == "error_event":
            events.append(chunk(api.error_event(api.fail(Refused(NAMED["error_event"][1], "server")))))
        if call.fault != "cut":
            events.append(chunk(b""))
        if not self._pace:
            return iter([(0.0, opening + b"".join(events))])
        return iter([(0.0, opening), *((self._pace, event) for event in events)])


def _words(api: Api, reason: str, otherwise: str) -> str:
    return api.words.get(reason, otherwise)


def _checked(route: Route, sent: Sent) -> Job:
    try:
        route.authorize(sent)
        return route.check(sent)
    except Wrong as wrong:
        raise route.api.phrase(wrong) from None
    except MALFORMED as error:
        raise Refused(f"the request is malformed: {type(error).__name__}") from None


def _whole(status: int, headers: Mapping[str, str], raw: bytes) -> Pieces:
    yield 0.0, head(status, headers, len(raw)) + raw


def _after(seconds: float, pieces: Pieces) -> Pieces:
    if seconds > 0:
        yield seconds, b""
    yield from pieces


def _failed(failure: Failure, headers: Mapping[str, str], seconds: float = 0.0) -> Play:
    told = {"content-type": JSON, **headers, **failure.headers}
    return Play(_after(seconds, _whole(failure.status, told, orjson.dumps(failure.body))))


@asynccontextmanager
async def listening(simulator: Simulator, host: str, port: int) -> AsyncIterator[int]:
    """Serve on `host` while the block runs, and yield the port; 0 takes a free one. Raises `OSError`."""
    listener = socket.create_server((host, port), backlog=4096)
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(simulator.play, connections), sock=listener)
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()
        await server.wait_closed()
