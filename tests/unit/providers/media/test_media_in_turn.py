"""Many requests with files at once: each waits for its turn, and none stands in the way of what is no file."""

import asyncio
import socket
import threading

import pytest

from broker.config import Media
from broker.errors import DeadlineExceeded, InvalidRequest
from tests.unit.providers.media.test_media_fetcher import answering, body_of, fetcher, serving
from workers.providers.media import AT_ONCE, AT_ONCE_IN_ALL, MediaFetcher

ANSWER = answering()


async def test_a_request_whose_turn_does_not_come_is_late_and_not_wrong() -> None:
    go = asyncio.Event()

    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await ANSWER(path, writer)

    async with serving(serve) as server:
        found = fetcher(server.port)
        urls = [f"http://x.example:{server.port}/{number}" for number in range(AT_ONCE)]
        first = [asyncio.create_task(found.inlined(body_of(*urls), 20.0)) for _ in range(AT_ONCE_IN_ALL // AT_ONCE)]
        while len(server.asked) < AT_ONCE_IN_ALL:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.005)
        behind = asyncio.create_task(found.inlined(body_of(urls[0]), 20.0))
        with pytest.raises(DeadlineExceeded, match="files of other requests"):
            await found.inlined(body_of(urls[0]), 0.05)
        asked = len(server.asked)
        first.pop().cancel()  # its places are the next one's
        while len(server.asked) == asked:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)
        go.set()
        told = await asyncio.gather(behind, *first)
        await found.close()
    assert [len(each["messages"][0]["content"]) for each in told] == [1] + [AT_ONCE] * len(first)


async def test_name_servers_that_do_not_answer_hold_up_nothing_but_files(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        answered.wait(20)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = MediaFetcher(Media(allowed_hosts=("*",)))
    bodies = [body_of(f"http://x{number}.example/") for number in range(AT_ONCE_IN_ALL)]
    waiting = [asyncio.create_task(found.inlined(body, 20.0)) for body in bodies]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert await asyncio.to_thread(lambda: "parsed") == "parsed"
    assert [task.done() for task in waiting] == [False] * len(waiting)
    answered.set()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    await found.close()
    assert {type(end) for end in ends} == {InvalidRequest}
