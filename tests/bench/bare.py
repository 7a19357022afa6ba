"""The bare pipeline that the product is measured against: no feature at all, as speed.md defines it.

getmany of at most 256 → semaphore → task → parse → pyreqwest → parse → send, commit every 300 ms. It loses work when it
is stopped; it is a yardstick. `python -m tests.bench.bare --help`.
"""

import argparse
import asyncio
import resource
import signal
from datetime import timedelta

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pyreqwest.client import Client, ClientBuilder

POLL_RECORDS = 256
COMMIT_SECONDS = 0.3


class Bare:
    """One process of it."""

    def __init__(self, options: argparse.Namespace, client: Client) -> None:
        self._url = f"{options.upstream}/chat/completions"
        self._replies = options.replies
        self._client = client
        self._permits = asyncio.Semaphore(options.in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self._consumer = AIOKafkaConsumer(
            options.requests,
            bootstrap_servers=options.bootstrap,
            group_id=options.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 << 20,
            fetch_max_bytes=16 << 20,
        )
        self._producer = AIOKafkaProducer(
            bootstrap_servers=options.bootstrap, acks="all", max_batch_size=512 << 10, max_request_size=4 << 20
        )

    async def run(self, stopped: asyncio.Event) -> None:
        """Serve until stopped."""
        await self._producer.start()
        await self._consumer.start()
        committer = asyncio.create_task(self._commit())
        while not stopped.is_set():
            batches = await self._consumer.getmany(timeout_ms=100, max_records=POLL_RECORDS)
            for records in batches.values():
                for record in records:
                    await self._permits.acquire()
                    task = asyncio.create_task(self._serve(record.key, record.value, record.headers))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        committer.cancel()
        await asyncio.gather(*self._tasks, committer, return_exceptions=True)
        await self._consumer.stop()
        await self._producer.stop()

    async def _serve(self, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        try:
            orjson.loads(value)
            request = self._client.post(self._url).header("content-type", "application/json").body_bytes(value)
            answer = await request.build().send()
            body = bytes(await answer.bytes())
            orjson.loads(body)
            request_id = dict(headers)["request-id"]
            reply = [("request-id", request_id), ("status", str(answer.status).encode()), ("final", b"1")]
            await self._producer.send(self._replies, body, key=key, headers=reply, partition=0)
        finally:
            self._permits.release()

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            await self._consumer.commit()


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    builder = ClientBuilder().no_proxy().http1_only().timeout(timedelta(seconds=60))
    async with builder.pool_max_idle_per_host(options.in_flight).build() as client:
        await Bare(options, client).run(stopped)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "requests", "replies", "upstream", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve(options))


if __name__ == "__main__":
    main()
