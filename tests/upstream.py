"""A scripted OpenAI-compatible upstream on 127.0.0.1, for every test that needs one. Imports nothing of the product.

    async with Upstream() as up:                         # on the running loop; `with Upstream()` runs it in a thread
        up.script("model-a", [Status(429, retry_after=1), Html(), Drop(), Ok()])
        …                                                # up.url, up.calls, up.peak, up.counts["request-id"]

A script is played once, in order; after it the model answers `Ok()`. As a process of its own:
`python -m tests.upstream --port 0 --script FILE`, FILE being `{"m": [{"Status": {"status": 429}}, {"Drop": {}}]}`; it
prints `{"url": …}` when it listens and answers `GET /-/stats` with what it has seen.
"""

import argparse
import asyncio
import json
import resource
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from tests.upstream_steps import (
    STEPS,
    BreakingStream,
    Drop,
    Events,
    Hang,
    Html,
    Ok,
    Raw,
    ReceivedCall,
    Sse,
    Status,
    Step,
    TruncatedJson,
    Wire,
)

__all__ = [
    "BreakingStream",
    "Drop",
    "Events",
    "Hang",
    "Html",
    "Ok",
    "Raw",
    "ReceivedCall",
    "Sse",
    "Status",
    "Step",
    "TruncatedJson",
    "Upstream",
]


class Upstream:
    """The server. Use it as a context manager: `async with` on the running loop, `with` in a thread of its own."""

    def __init__(self, port: int = 0, default: Step | None = None) -> None:
        self.calls: list[ReceivedCall] = []
        self.counts: Counter[str] = Counter()
        """Calls per `x-request-id`."""
        self.in_flight = 0
        self.peak = 0
        """The most requests that were open at once."""
        self.default = default or Ok()
        self._port = port
        self._scripts: defaultdict[tuple[str, str], deque[Step]] = defaultdict(deque)
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._open: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        """The API base, `/v1` included."""
        return f"http://127.0.0.1:{self._port}/v1"

    def script(self, model: str, steps: Iterable[Step]) -> None:
        """Play `steps` for the next requests that name `model`."""
        self._scripts["model", model].extend(steps)

    def script_request(self, request_id: str, steps: Iterable[Step]) -> None:
        """Play `steps` for the next requests with this `x-request-id`, before what the model has."""
        self._scripts["request", request_id].extend(steps)

    async def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait for a condition on what this upstream has seen; asked again whenever something happens."""
        if not condition():
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((condition, future))
            await asyncio.wait_for(future, timeout)

    def stats(self) -> dict[str, Any]:
        """What `GET /-/stats` answers."""
        return {
            "calls": len(self.calls),
            "peak": self.peak,
            "in_flight": self.in_flight,
            "disconnects": sum(call.disconnected for call in self.calls),
            "counts": dict(self.counts),
            "models": dict(Counter(call.model for call in self.calls)),
        }

    def begin(self, call: ReceivedCall) -> Step:
        """Record a request and choose its step."""
        self.calls.append(call)
        self.counts[call.request_id] += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self._changed()
        for script in (self._scripts.get(("request", call.request_id)), self._scripts.get(("model", call.model))):
            if script:
                return script.popleft()
        return self.default

    def end(self, call: ReceivedCall, *, disconnected: bool) -> None:
        """Record that a request is over."""
        call.finished, call.disconnected = time.monotonic(), disconnected
        self.in_flight -= 1
        self._changed()

    def _changed(self) -> None:
        for item in [waiter for waiter in self._waiting if waiter[0]()]:
            self._waiting.remove(item)
            if not item[1].done():
                item[1].set_result(None)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, "127.0.0.1", self._port, backlog=4096)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    def _connect(self) -> "_Connection":
        return _Connection(self, self._open)

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._open):
            connection.abort()
        await self._server.wait_closed()

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="upstream", daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    async def _serve(self, ready: threading.Event) -> None:
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        async with self:
            ready.set()
            await stopped.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._thread is not None
        self._stop()
        self._thread.join(10)


class _Connection(asyncio.Protocol):
    """One keep-alive connection; answers its requests one after the other."""

    def __init__(self, upstream: Upstream, connections: "set[_Connection]") -> None:
        self._upstream = upstream
        self._open = connections
        self._buffer = bytearray()
        self._call: ReceivedCall | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._open.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._finish(disconnected=True)

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def _next(self) -> None:
        while self._call is None and (call := self._parse()) is not None:
            if call.path == "/-/stats":
                self._transport.write(Raw(json.dumps(self._upstream.stats())).wire(call).pieces[0])
                continue
            self._call = call
            step = self._upstream.begin(call)
            wire = step.wire(call)
            if step.delay:
                self._timer = asyncio.get_running_loop().call_later(step.delay, self._send, wire, 0)
            else:
                self._send(wire, 0)

    def _parse(self) -> ReceivedCall | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        request_line, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        total = end + 4 + int(headers.get("content-length", "0"))
        if len(self._buffer) < total:
            return None
        body = bytes(self._buffer[end + 4 : total])
        del self._buffer[:total]
        method, path, _ = request_line.split(" ")
        return ReceivedCall(method, path, headers, body, time.monotonic())

    def _send(self, wire: Wire, position: int) -> None:
        self._timer = None
        if position < len(wire.pieces):
            self._transport.write(wire.pieces[position])
            position += 1
        if position < len(wire.pieces):
            self._timer = asyncio.get_running_loop().call_later(wire.gap, self._send, wire, position)
        elif wire.close:
            self._finish(disconnected=False)
            self._transport.close()
        elif not wire.hang:
            self._finish(disconnected=False)
            self._next()

    def _finish(self, *, disconnected: bool) -> None:
        if self._call is not None:
            call, self._call = self._call, None
            self._upstream.end(call, disconnected=disconnected)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before every unscripted answer")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard >= 0 else 10_240, hard))
    upstream = Upstream(options.port, Ok(delay=options.delay))
    scripts = json.loads(options.script.read_text()) if options.script else {}
    for model, steps in scripts.items():
        upstream.script(model, [STEPS[name](**fields) for step in steps for name, fields in step.items()])

    async def serve() -> None:
        async with upstream:
            print(json.dumps({"url": upstream.url}), flush=True)  # noqa: T201 - tells who started it where it listens
            await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
