"""`/health`, `/ready` and `/metrics` of one process, served inside its event loop. Imports starlette and uvicorn."""

import errno
import socket
from collections.abc import Callable
from typing import Any, Final

import orjson
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.errors import ConfigError

Ready = Callable[[], tuple[bool, dict[str, Any]]]
"""Whether the process can do its work now, and why or why not; called on the loop, must not block."""

STOP_SECONDS: Final = 2
"""How long `stop` lets a running scrape finish."""


class HealthServer:
    """Answers on `host:port` until stopped; port 0 takes a free one. It handles no signals: those are the process's."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, ready: Ready) -> None:
        self.host = host
        self.port = port
        """The port it listens on, once started."""
        self._registry = registry
        self._ready = ready
        self._server: uvicorn.Server | None = None
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Listen. Raises `ConfigError` where the address cannot be had."""
        self._socket = _listen(self.host, self.port)
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self._app(),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            date_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        # Not `serve`: it takes over the signal handlers and wakes ten times a second for a Date header.
        await server.startup(sockets=[self._socket])
        self._server = server

    async def stop(self) -> None:
        """Close the port; a second call does nothing."""
        server, self._server = self._server, None
        if server is not None and self._socket is not None:
            await server.shutdown(sockets=[self._socket])

    def _app(self) -> Starlette:
        answers = {"/health": self._health, "/ready": self._answer_ready, "/metrics": self._metrics}
        return Starlette(routes=[Route(path, answer, methods=["GET"]) for path, answer in answers.items()])

    async def _health(self, request: Request) -> Response:
        del request
        return _json(200, {"status": "ok"})

    async def _answer_ready(self, request: Request) -> Response:
        del request
        ready, why = self._ready()
        return _json(200 if ready else 503, {"ready": ready, **why})

    async def _metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": content_type})


def _json(status: int, body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body, default=str), status, media_type="application/json")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ConfigError(f"server.host: {host} cannot be resolved: {error.strerror}") from error
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} on {host} is in use; choose another (server.port_base)") from error
        raise ConfigError(f"port {port} on {host} cannot be used: {error.strerror}") from error
    listener.settimeout(0)
    return listener
