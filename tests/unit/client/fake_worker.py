"""A worker of a few lines over the log's ports: reads an alias's two topics and answers by a function."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import orjson

from broker.envelope import Job, encode_chunk, encode_reply, open_record
from broker.ports import LogProducer, LogReader
from broker.records import OutRecord
from broker.topics import Lane, TopicNames
from schemas.request import CHAT, EMBEDDINGS

Respond = Callable[[Job], Sequence[OutRecord]]


def completion(text: str, *, tokens: int = 3) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": tokens, "total_tokens": 2 + tokens},
    }


def reply(job: Job, body: Any, *, status: int = 200, **headers: str) -> OutRecord:
    values = {
        "request-id": job.request_id,
        "status": str(status),
        "alias": job.alias,
        "served-by": f"{job.alias}/0",
        "model": "tiny",
        "attempts": "1",
        "fallbacks": "0",
        "cost": "0.00012",
        "queue-ms": "4",
        "upstream-ms": "20",
        "final": "1",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    record = encode_reply(job, orjson.dumps(body), values)
    assert record is not None
    return record


def failure(job: Job, status: int, code: str, message: str = "no", param: str | None = None) -> OutRecord:
    body = {"error": {"message": message, "type": "api_error", "param": param, "code": code}}
    return reply(job, body, status=status, cost="")


def chunk(job: Job, seq: int, text: str, *, attempt: int = 1) -> OutRecord:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": text}}],
    }
    return encode_chunk(job, seq=seq, attempt=attempt, value=orjson.dumps(body))


def echo(job: Job) -> Sequence[OutRecord]:
    """Answer with the last message, upper case; embed as the length of the input; complete with the prompt twice."""
    if job.endpoint == CHAT:
        return [reply(job, completion(str(job.body["messages"][-1]["content"]).upper()))]
    if job.endpoint == EMBEDDINGS:
        vector = {"index": 0, "object": "embedding", "embedding": [float(len(job.body["input"]))]}
        return [reply(job, {"object": "list", "model": "tiny", "data": [vector]})]
    text = {"index": 0, "text": job.body["prompt"] * 2, "finish_reason": "stop"}
    return [reply(job, {"id": "cmpl-1", "choices": [text]})]


class FakeWorker:
    """Serves one alias until its context is left; `jobs` has the requests it saw, `seen` is set by the first."""

    def __init__(  # noqa: PLR0913 - its ports, and what it serves
        self,
        producer: LogProducer,
        reader: LogReader,
        names: TopicNames,
        alias: str = "local",
        respond: Respond = echo,
        *,
        from_first: bool = False,
    ) -> None:
        self._producer = producer
        self._reader = reader
        self._names = names
        self._alias = alias
        self._from_first = from_first
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self.respond = respond
        self.jobs: list[Job] = []
        self.seen = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._producer.start()
        await self._reader.start()
        positions = {
            partition: first if self._from_first else end
            for lane in Lane
            for partition, (first, end) in (await self._reader.bounds(self._names.lane(self._alias, lane))).items()
        }
        await self._reader.assign(positions)
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        if self._task is not None:
            await self._task
        await self._reader.stop()
        await self._producer.stop()

    async def _serve(self) -> None:
        while not self._stopping:
            out: list[OutRecord] = []
            for record in await self._reader.poll(max_records=500, timeout=0.05):
                alias, lane = self._names.parse(record.topic) or ("", Lane.INTERACTIVE)
                job = open_record(
                    record,
                    alias=alias,
                    lane=lane,
                    replies_topic=self._names.replies,
                    secret=b"-",
                    max_body_bytes=1 << 20,
                )
                self.jobs.append(job)
                self.seen.set()
                out += self.respond(job)
            if out:
                assert set(await self._producer.send_all(out)) == {None}
