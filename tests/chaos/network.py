"""A network that can be cut: a proxy in front of one server, which forwards until it is told to swallow everything."""

import asyncio
import contextlib
from typing import Final

CHUNK: Final = 1 << 16


class CutProxy:
    """Listens on a port of its own. `cut` is silent, as a lost route is: nothing arrives, nobody is told."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        self.port = 0

    async def start(self, port: int) -> None:
        """Listen on `port`."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        self.port = port

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        self._drop()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def cut(self) -> None:
        """Forward nothing any more; connections stay open, new ones are accepted and get no answer."""
        self._whole.clear()

    def heal(self) -> None:
        """Forward again. What was open during the cut is closed: half of it is lost."""
        self._drop()
        self._whole.set()

    def _drop(self) -> None:
        for task in self._pipes:
            task.cancel()
        for writer in self._writers:
            writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._pipes.add(task)
            task.add_done_callback(self._pipes.discard)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._whole.wait()
                there, back = await asyncio.open_connection(*self._target)
                self._writers.add(back)
                try:
                    async with asyncio.TaskGroup() as pipes:
                        pipes.create_task(self._pipe(reader, back))
                        pipes.create_task(self._pipe(there, writer))
                finally:
                    self._writers.discard(back)
                    back.close()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
