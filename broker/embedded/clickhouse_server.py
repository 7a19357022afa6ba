"""`python -m broker.embedded.clickhouse_server`: ClickHouse's HTTP interface over the in-process engine.

Clients written for a ClickHouse server (clickhouse-connect, curl, Grafana) work unchanged: statements in the URL or
the body, settings and `param_…` in the URL, X-ClickHouse headers, error codes. Sessions, users and quotas are ignored.
"""

import argparse
import asyncio
import email.parser
import email.policy
import json
import logging
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import cramjam
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from broker.embedded.clickhouse_engine import Engine, EngineError, Outcome, Statement, new_query_id

logger = logging.getLogger(__name__)

STATUSES: Final = {16: 404, 46: 404, 47: 404, 60: 404, 81: 404, 62: 400, 26: 400, 27: 400, 43: 400, 53: 400, 36: 400}
"""ClickHouse error code to the HTTP status its server sends; every other code is 500 (HTTPHandler.cpp)."""

NOT_IMPLEMENTED: Final = 48
BAD_ARGUMENTS: Final = 36

CONTENT_TYPES: Final = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "Native": "application/octet-stream",
}
"""Format to media type; every other one is tab-separated text."""

ENCODINGS: Final = {
    "gzip": cramjam.gzip.decompress,
    "deflate": cramjam.zlib.decompress,
    "lz4": cramjam.lz4.decompress,
    "zstd": cramjam.zstd.decompress,
    "br": cramjam.brotli.decompress,
}
"""Content-Encoding of a request body to what undoes it."""


def _form(content_type: str, body: bytes) -> dict[str, bytes]:
    """Fields of a multipart form, in which clients send statements with long parameters; files are refused."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    fields: dict[str, bytes] = {}
    for part in message.iter_parts():
        if part.get_filename() is not None:
            raise EngineError("Code: 48. DB::Exception: External tables are not supported here.", NOT_IMPLEMENTED)
        name = part.get_param("name", header="content-disposition")
        fields[str(name)] = cast("bytes", part.get_payload(decode=True))
    return fields


def _decoded(encoding: str, body: bytes) -> bytes:
    if not encoding or encoding == "identity":
        return body
    undo = ENCODINGS.get(encoding)
    if undo is None:
        raise EngineError(f"Code: 48. DB::Exception: Unknown Content-Encoding {encoding}.", NOT_IMPLEMENTED)
    try:
        return bytes(undo(body))
    except cramjam.DecompressionError as error:
        raise EngineError(f"Code: 36. DB::Exception: The body is not {encoding}: {error}", BAD_ARGUMENTS) from error


async def read_statement(request: Request) -> Statement:
    """Read one HTTP request; raises `EngineError` for what this front does not offer."""
    arguments: dict[str, str] = dict(request.query_params)
    body = _decoded(request.headers.get("content-encoding", ""), await request.body())
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("multipart/form-data"):
        fields = _form(content_type, body)
        body = fields.pop("query", b"")
        arguments.update({name: value.decode() for name, value in fields.items()})
    for name in ("compress", "decompress"):
        if arguments.get(name, "0") not in ("0", "false"):
            raise EngineError(f"Code: 48. DB::Exception: {name}=1 is not supported here.", NOT_IMPLEMENTED)
    query = arguments.pop("query", "").encode()
    default_format = arguments.pop("default_format", "") or request.headers.get("x-clickhouse-format", "TabSeparated")
    database = arguments.pop("database", "") or request.headers.get("x-clickhouse-database", "")
    parameters = {name.removeprefix("param_"): value for name, value in arguments.items() if name.startswith("param_")}
    chosen: dict[str, Any] = {"database": database} if database else {}
    return Statement(
        sql=query or body,
        data=body if query else b"",
        parameters=parameters,
        settings={name: value for name, value in arguments.items() if not name.startswith("param_")},
        default_format=default_format,
        read_only=request.method == "GET",
        **chosen,
    )


def _summary(outcome: Outcome) -> str:
    counts: Mapping[str, int] = {
        "read_rows": outcome.rows_read,
        "read_bytes": outcome.bytes_read,
        "written_rows": outcome.rows_written,
        "written_bytes": outcome.bytes_written,
        "total_rows_to_read": 0,
        "elapsed_ns": int(outcome.elapsed_s * 1e9),
    }
    return json.dumps({name: str(count) for name, count in counts.items()})


class Front:
    """The HTTP interface of one engine; statements run one after another in a thread of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._engine: Engine | None = None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Open the engine before the first request and close it after the last."""
        del app
        loop = asyncio.get_running_loop()
        self._engine = await loop.run_in_executor(self._thread, Engine, self._folder)
        try:
            yield
        finally:
            await loop.run_in_executor(self._thread, self._engine.close)
            self._thread.shutdown()

    async def ping(self, request: Request) -> Response:
        """`GET /ping`."""
        del request
        return PlainTextResponse("Ok.\n")

    async def query(self, request: Request) -> Response:
        """Run the statement of a request."""
        engine = self._engine
        if engine is None:
            raise RuntimeError("a request came outside the lifespan")
        query_id = request.query_params.get("query_id") or new_query_id()
        headers = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Server-Display-Name": "embedded",
            "X-ClickHouse-Timezone": engine.timezone,
        }
        try:
            statement = await read_statement(request)
            if not statement.sql.strip():
                return PlainTextResponse("Ok.\n", headers=headers)
            outcome = await asyncio.get_running_loop().run_in_executor(self._thread, engine.run, statement)
        except EngineError as error:
            return PlainTextResponse(
                f"{error} (version {engine.version})\n",
                status_code=STATUSES.get(error.code, 500),
                headers={**headers, "X-ClickHouse-Exception-Code": str(error.code)},
            )
        headers |= {
            "X-ClickHouse-Format": outcome.format,
            "X-ClickHouse-Summary": _summary(outcome),
            "Content-Type": CONTENT_TYPES.get(outcome.format, "text/tab-separated-values; charset=UTF-8"),
        }
        return Response(outcome.body, headers=headers)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[Route("/ping", self.ping), Route("/", self.query, methods=["GET", "POST"])],
            lifespan=self.lifespan,
        )


def main() -> None:
    """Read the arguments and serve on 127.0.0.1 until SIGTERM."""
    parser = argparse.ArgumentParser(description="ClickHouse's HTTP interface over the in-process engine")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    front = Front(arguments.data)
    uvicorn.run(
        front.app(),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
