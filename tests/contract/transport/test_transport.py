"""The contract of the transport seam, over both engines."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import pytest

from broker.errors import BadUpstreamResponse, RequestError, UpstreamTimeout, UpstreamUnreachable
from tests.upstream import BreakingStream, Drop, Events, Hang, Ok, Raw, Status, Upstream
from workers.providers.transport import Engine, Transport, make_transport

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
STREAM = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
SECRET = "sk-very-secret-key"
HEADERS = [("content-type", "application/json"), ("authorization", f"Bearer {SECRET}")]


@pytest.fixture(params=["pyreqwest", "httpx"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    engine: Engine = request.param
    transport = make_transport(256, prefer=engine, connect_timeout=2)
    yield transport
    await transport.close()


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


async def ask(transport: Transport, up: Upstream, *, timeout: float = 10.0, max_bytes: int = 1 << 26) -> bytes:
    url = f"{up.url}/chat/completions"
    answer = await transport.post(url, headers=HEADERS, body=BODY, timeout=timeout, max_bytes=max_bytes)
    assert answer.status == 200
    return answer.body


async def read(transport: Transport, up: Upstream, *, timeout: float = 10.0, read_timeout: float = 10.0) -> list[bytes]:
    url = f"{up.url}/chat/completions"
    async with transport.stream(
        url, headers=HEADERS, body=STREAM, timeout=timeout, read_timeout=read_timeout
    ) as answer:
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        return [piece async for piece in answer]


async def test_an_answer_arrives_with_its_status_headers_and_body(transport: Transport, up: Upstream) -> None:
    up.script("m", [Raw("{}", headers={"X-RateLimit-Remaining-Requests": "7"})])
    answer = await transport.post(f"{up.url}/chat/completions", headers=HEADERS, body=BODY, timeout=5)
    assert (answer.status, answer.body, answer.headers["x-ratelimit-remaining-requests"]) == (200, b"{}", "7")
    assert (up.calls[0].body, up.calls[0].headers["authorization"]) == (BODY, f"Bearer {SECRET}")


@pytest.mark.parametrize("status", [302, 400, 429, 500, 503])
async def test_a_status_is_returned_and_never_raised_or_followed(
    transport: Transport, up: Upstream, status: int
) -> None:
    up.script("m", [Status(status, headers={"location": up.url})])
    answer = await transport.post(f"{up.url}/chat/completions", headers=HEADERS, body=BODY, timeout=5)
    assert (answer.status, len(up.calls)) == (status, 1)


async def test_a_compressed_body_is_decompressed(transport: Transport, up: Upstream) -> None:
    up.script("m", [Raw(gzip.compress(b"plain"), headers={"content-encoding": "gzip"})])
    assert await ask(transport, up) == b"plain"


async def test_a_body_that_is_not_what_its_encoding_says_is_a_bad_answer(transport: Transport, up: Upstream) -> None:
    up.script("m", [Raw(b"no gzip", headers={"content-encoding": "gzip"})])
    with pytest.raises(BadUpstreamResponse):
        await ask(transport, up)


async def test_a_large_body_arrives_whole(transport: Transport, up: Upstream) -> None:
    up.script("m", [Raw(b"x" * 5_000_000)])
    assert await ask(transport, up) == b"x" * 5_000_000


async def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_refused(
    transport: Transport, up: Upstream
) -> None:
    up.script("m", [Raw(b"x" * 300_000), Raw(b"x" * 300_001), Raw(gzip.compress(b"x" * 300_001), headers=GZIP)])
    assert len(await ask(transport, up, max_bytes=300_000)) == 300_000
    for _ in range(2):
        with pytest.raises(BadUpstreamResponse, match="larger than 300000 bytes"):
            await ask(transport, up, max_bytes=300_000)


GZIP = {"content-encoding": "gzip"}


async def test_a_connection_dropped_before_the_answer_is_unreachable(transport: Transport, up: Upstream) -> None:
    up.script("m", [Drop()])
    with pytest.raises(UpstreamUnreachable):
        await ask(transport, up)


@pytest.mark.parametrize("after_bytes", [0, 1, 100])
async def test_a_connection_dropped_inside_the_body_is_a_bad_answer(
    transport: Transport, up: Upstream, after_bytes: int
) -> None:
    up.script("m", [Drop(after_bytes=after_bytes)])
    with pytest.raises(BadUpstreamResponse):
        await ask(transport, up)


@pytest.mark.parametrize("step", [Hang(), Hang(after_head=True)])
async def test_an_upstream_that_hangs_is_a_timeout_and_its_connection_is_closed(
    transport: Transport, up: Upstream, step: Hang
) -> None:
    up.script("m", [step])
    with pytest.raises(UpstreamTimeout):
        await ask(transport, up, timeout=0.2)
    await up.until(lambda: up.in_flight == 0)


async def test_a_slow_answer_inside_the_timeout_is_an_answer(transport: Transport, up: Upstream) -> None:
    up.script("m", [Ok("slow", delay=0.2)])
    assert b"slow" in await ask(transport, up, timeout=5)


async def test_an_answer_that_is_not_http_is_a_bad_answer(transport: Transport) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        with pytest.raises(BadUpstreamResponse):
            await transport.post(url, headers=[], body=b"{}", timeout=5)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:1/v1?key=sk-very-secret-key", "http://127.0.0.1:1"),
        ("http://user:sk-very-secret-key@127.0.0.1:1/v1", "http://127.0.0.1:1"),
        ("http://host.invalid/v1?key=sk-very-secret-key", "http://host.invalid"),
        ("https://127.0.0.1:1/v1", "https://127.0.0.1:1"),
        ("not a url sk-very-secret-key", "an invalid URL"),
        ("ftp://127.0.0.1/sk-very-secret-key", "ftp://127.0.0.1"),
        ("http://127.0.0.1:99999/sk-very-secret-key", "an invalid URL"),
    ],
)
async def test_what_cannot_be_reached_says_where_and_tells_no_secret(
    transport: Transport, url: str, shown: str
) -> None:
    with pytest.raises(UpstreamUnreachable) as caught:
        await transport.post(url, headers=HEADERS, body=b"{}", timeout=5)
    assert shown in caught.value.message
    assert SECRET not in str(caught.getrepr(style="long", showlocals=False).reprcrash)
    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)


async def test_an_invalid_header_is_not_quoted(transport: Transport, up: Upstream) -> None:
    headers = [("authorization", f"Bearer {SECRET}\n")]
    with pytest.raises(UpstreamUnreachable) as caught:
        await transport.post(f"{up.url}/chat/completions", headers=headers, body=BODY, timeout=5)
    assert SECRET not in caught.value.message


async def test_tls_against_a_plain_server_is_an_error_of_ours(transport: Transport) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(16)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        with pytest.raises(UpstreamUnreachable):
            await transport.post(url, headers=[], body=b"{}", timeout=5)


async def test_cancelling_a_call_ends_it_at_once_and_its_connection_with_its_timeout_at_the_latest(
    transport: Transport, up: Upstream
) -> None:
    up.script("m", [Hang(), Hang(after_head=True)])
    for number in (1, 2):
        call = asyncio.create_task(ask(transport, up, timeout=0.5))
        await up.until(lambda number=number: len(up.calls) == number)  # type: ignore[misc] # bound for the loop
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await up.until(lambda: up.in_flight == 0)
    assert [call.disconnected for call in up.calls] == [True, True]


async def test_two_hundred_calls_run_at_once(transport: Transport, up: Upstream) -> None:
    up.default = Ok(delay=0.3)
    answers = await asyncio.gather(*(ask(transport, up, timeout=20) for _ in range(200)))
    assert (len(answers), up.peak) == (200, 200)


async def test_a_stream_arrives_piece_by_piece(transport: Transport, up: Upstream) -> None:
    up.script("m", [Ok("a b c", chunk_delay=0.02)])
    pieces = await read(transport, up)
    assert len(pieces) > 3
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n")


async def test_the_first_piece_is_there_while_the_upstream_is_still_writing(transport: Transport, up: Upstream) -> None:
    up.script("m", [Events([{"n": 1}, {"n": 2}], chunk_delay=60)])
    url = f"{up.url}/chat/completions"
    async with transport.stream(url, headers=HEADERS, body=STREAM, timeout=120, read_timeout=120) as answer:
        first = await asyncio.wait_for(anext(aiter(answer)), 5)
    assert first == b'data: {"n": 1}\n\n'
    await up.until(lambda: up.in_flight == 0)


async def test_a_stream_that_breaks_is_a_bad_answer(transport: Transport, up: Upstream) -> None:
    up.script("m", [BreakingStream(after=2), BreakingStream(after=2, chunk_delay=0.02)])
    for _ in range(2):
        with pytest.raises(BadUpstreamResponse):
            await read(transport, up)


async def test_a_stream_that_falls_silent_is_a_timeout(transport: Transport, up: Upstream) -> None:
    up.script("m", [Events([{"n": 1}, {"n": 2}], chunk_delay=60), Hang()])
    for _ in range(2):
        with pytest.raises(UpstreamTimeout):
            await read(transport, up, timeout=1, read_timeout=0.2)
    await up.until(lambda: up.in_flight == 0)


async def test_a_stream_that_never_falls_silent_ends_at_its_timeout(transport: Transport, up: Upstream) -> None:
    up.script("m", [Events([{"n": n} for n in range(100)], chunk_delay=0.1)])
    with pytest.raises(UpstreamTimeout):
        await read(transport, up, timeout=0.5)
    await up.until(lambda: up.in_flight == 0)
    assert up.calls[0].disconnected


async def test_cancelling_a_stream_closes_its_connection(transport: Transport, up: Upstream) -> None:
    up.script("m", [Events([{"n": 1}, {"n": 2}], chunk_delay=60)])
    first = asyncio.Event()

    async def follow() -> None:
        url = f"{up.url}/chat/completions"
        async with transport.stream(url, headers=HEADERS, body=STREAM, timeout=60, read_timeout=60) as answer:
            async for _ in answer:
                first.set()

    call = asyncio.create_task(follow())
    await first.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await up.until(lambda: up.in_flight == 0)


async def test_cancelling_a_stream_that_flows_closes_its_connection_at_once(transport: Transport, up: Upstream) -> None:
    up.script("m", [Events([{"n": n} for n in range(10_000)], chunk_delay=0.005)])
    seen = 0
    enough = asyncio.Event()

    async def follow() -> None:
        nonlocal seen
        url = f"{up.url}/chat/completions"
        async with transport.stream(url, headers=HEADERS, body=STREAM, timeout=60, read_timeout=60) as answer:
            async for _ in answer:
                seen += 1
                if seen == 5:
                    enough.set()

    call = asyncio.create_task(follow())
    await enough.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await up.until(lambda: up.in_flight == 0, timeout=2)
    assert up.calls[0].disconnected


async def test_a_closed_transport_raises_an_error_of_ours(up: Upstream) -> None:
    for engine in ("pyreqwest", "httpx"):
        transport = make_transport(1, prefer=engine)
        await transport.close()
        with pytest.raises(RequestError):
            await ask(transport, up)


async def test_a_cancellation_that_meets_the_answer_is_not_lost(transport: Transport, up: Upstream) -> None:
    for turns in range(60):
        for call in (ask, read):
            task: asyncio.Task[object] = asyncio.create_task(call(transport, up))
            seen = len(up.calls)
            await up.until(lambda seen=seen: len(up.calls) > seen)  # type: ignore[misc] # bound for the loop
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
