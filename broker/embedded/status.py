"""The stack's own page: /health, /ready and /metrics of everything it runs, on one port."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

import httpx
import uvicorn
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.embedded.merge import merge
from broker.embedded.part import HOST, Part
from broker.embedded.supervisor import OK, Program

SCRAPE_S: Final = 5.0
"""How long one process may take for its metrics before the page goes out without them."""


class _Server(uvicorn.Server):
    """A server that leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class StatusPage:
    """Answers for the parts and programs that `members` returns at the time of the question."""

    def __init__(self, members: Callable[[], tuple[Sequence[Part], Sequence[Program]]]) -> None:
        self._members = members

    async def health(self, request: Request) -> Response:
        """200 when every part serves and every program's /health is good."""
        del request
        return await self._answer("/health")

    async def ready(self, request: Request) -> Response:
        """200 when every part serves and every program is ready."""
        del request
        return await self._answer("/ready")

    async def _answer(self, path: str) -> Response:
        parts, programs = self._members()
        serving = await asyncio.gather(*(part.serves() for part in parts))
        statuses = await asyncio.gather(*(program.status(path) for program in programs))
        states = {part.name: serves for part, serves in zip(parts, serving, strict=True)}
        states |= {program.name: status == OK for program, status in zip(programs, statuses, strict=True)}
        good = all(states.values())
        body: dict[str, Any] = {"status": "ok" if good else "failing", "parts": states}
        return JSONResponse(body, status_code=OK if good else 503)

    async def metrics(self, request: Request) -> Response:
        """Return every program's families on one page, with the label `process`; one that is silent is left out."""
        del request
        _, programs = self._members()
        async with httpx.AsyncClient(timeout=SCRAPE_S, trust_env=False) as client:
            pages = await asyncio.gather(*(_page(client, program) for program in programs))
        said = {program.name: page for program, page in zip(programs, pages, strict=True) if page is not None}
        return Response(merge(said), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    def app(self) -> Starlette:
        """Return the ASGI application."""
        answers = {"/health": self.health, "/ready": self.ready, "/metrics": self.metrics}
        return Starlette(routes=[Route(path, answer, methods=["GET"]) for path, answer in answers.items()])

    @contextlib.asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[None]:
        """Listen on 127.0.0.1 while the block runs."""
        config = uvicorn.Config(
            self.app(),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=2,
        )
        server = _Server(config)
        # Listening from here on: who asks before the server runs waits for it instead of being refused.
        listener = socket.create_server((HOST, port))
        task = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await task


async def _page(client: httpx.AsyncClient, program: Program) -> str | None:
    try:
        answer = await client.get(f"http://{HOST}:{program.port}/metrics", headers={"accept": "text/plain"})
    except httpx.HTTPError:
        return None
    return answer.text if answer.status_code == OK else None
