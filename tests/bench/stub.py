"""An upstream that costs almost nothing, so that a bench measures the caller: one fixed completion.

It answers after `--delay` seconds. `python -m tests.bench.stub --port 0` prints `{"port": N, "url": …}` when it
listens; it reads no body, keeps connections alive, answers pipelined requests in order and ends on SIGTERM.
"""

import argparse
import asyncio
import json
import resource
import signal
from typing import Final, cast

import uvloop

BODY: Final = json.dumps(
    {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "stub-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The quick brown fox jumps over the lazy dog. " * 4},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 120, "completion_tokens": 40, "total_tokens": 160},
        "system_fingerprint": "stub",
    }
).encode()
ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Stub(asyncio.Protocol):
    """One connection."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        """Answer every whole request in `data`."""
        data = self._buffer + data if self._buffer else data
        answers = 0
        while (end := data.find(b"\r\n\r\n")) >= 0:
            total = end + 4 + self._length(data[:end])
            if len(data) < total:
                break
            data = data[total:]
            answers += 1
        self._buffer = data
        if answers and self._delay:
            self._loop.call_later(self._delay, self._transport.write, ANSWER * answers)
        elif answers:
            self._transport.write(ANSWER * answers)

    @staticmethod
    def _length(head: bytes) -> int:
        at = head.lower().find(b"\r\ncontent-length:")
        if at < 0:
            return 0
        end = head.find(b"\r\n", at + 2)
        return int(head[at + 17 : end if end >= 0 else len(head)])


async def serve(port: int, delay: float) -> None:
    """Listen until SIGTERM or SIGINT."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(lambda: Stub(delay), "127.0.0.1", port, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"port": port, "url": f"http://127.0.0.1:{port}/v1"}), flush=True)  # noqa: T201 - the ready line
    await stopped.wait()
    server.close()


def main() -> None:
    """Serve on one core, with as many connections as the machine allows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before every answer")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve(options.port, options.delay))


if __name__ == "__main__":
    main()
