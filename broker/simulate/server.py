"""Serves the simulated APIs on one port. Imports starlette and uvicorn.

OpenAI under `/v1`, Anthropic under `/v1/messages`, Gemini under `/v1beta/models/…`; `GET /-/stats` tells what was seen,
`POST /-/script` takes a list of faults for the next calls.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from broker.simulate import anthropic_api, gemini_api, openai_api
from broker.simulate.api import Refused, Wanted, refuse
from broker.simulate.behaviour import Behaviour, Call, Desk, tokens_of

JSON: Final = "application/json"
MALFORMED: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError)
PAGE: Final = b"<!doctype html><html><body><h1>Bad gateway</h1></body></html>"
HANG_S: Final = 3600.0
FAULTS: Final = ("429", "500", "503", "529", "drop", "hang", "html", "cut")
"""What `--fault` knows beside any other status from 400 to 599."""

Answer = Callable[[], Mapping[str, Any]]
Stream = Callable[[], Iterator[bytes]]


class Simulator:
    """An ASGI application and what it has seen."""

    def __init__(self, behaviour: Behaviour, now: Callable[[], float] = time.monotonic) -> None:
        self.desk = Desk(behaviour, now)
        self.app = Starlette(
            routes=[
                Route("/-/stats", self._stats),
                Route("/-/script", self._script, methods=["POST"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
                Route("/v1/messages", self._messages, methods=["POST"]),
                Route("/v1beta/models/{call:path}", self._gemini, methods=["POST"]),
            ]
        )

    async def _stats(self, request: Request) -> Response:
        del request
        return _json(200, self.desk.stats())

    async def _script(self, request: Request) -> Response:
        faults = orjson.loads(await request.body())
        self.desk.script([str(each) for each in faults])
        return _json(200, {"scripted": len(faults)})

    async def _chat(self, request: Request) -> Response:
        def check(body: dict[str, Any]) -> tuple[Wanted, Answer, Stream]:
            openai_api.authorized(request.headers)
            wanted = openai_api.chat(body)
            told = (body.get("stream_options") or {}).get("include_usage") is True
            wanted = replace(wanted, more={"usage": told})
            return (
                wanted,
                lambda: openai_api.completion(wanted, self._output),
                lambda: openai_api.stream(wanted, self._output),
            )

        return await self._serve("openai", request, check, openai_api.failure)

    async def _embeddings(self, request: Request) -> Response:
        def check(body: dict[str, Any]) -> tuple[Wanted, Answer, Stream]:
            openai_api.authorized(request.headers)
            wanted, answer = openai_api.embedding(body)
            return wanted, lambda: answer, lambda: iter(())

        return await self._serve("openai", request, check, openai_api.failure)

    async def _messages(self, request: Request) -> Response:
        def check(body: dict[str, Any]) -> tuple[Wanted, Answer, Stream]:
            anthropic_api.authorized(request.headers)
            wanted = anthropic_api.messages(body)
            return (
                wanted,
                lambda: anthropic_api.message(wanted, self._output),
                lambda: anthropic_api.stream(wanted, self._output),
            )

        return await self._serve("anthropic", request, check, anthropic_api.failure)

    async def _gemini(self, request: Request) -> Response:
        model, _, verb = request.path_params["call"].rpartition(":")

        def check(body: dict[str, Any]) -> tuple[Wanted, Answer, Stream]:
            gemini_api.authorized(request.headers)
            if verb == "batchEmbedContents":
                wanted, answer = gemini_api.embeddings(body, model)
                return wanted, lambda: answer, lambda: iter(())
            if verb not in {"generateContent", "streamGenerateContent"}:
                raise Refused(404, f"no method is named {verb}")
            wanted = replace(gemini_api.generate(body, model), streams=verb == "streamGenerateContent")
            return (
                wanted,
                lambda: gemini_api.answer(wanted, self._output),
                lambda: gemini_api.stream(wanted, self._output),
            )

        return await self._serve("gemini", request, check, gemini_api.failure)

    @property
    def _output(self) -> int:
        return self.desk.behaviour.output_tokens

    async def _serve(
        self,
        api: str,
        request: Request,
        check: Callable[[dict[str, Any]], tuple[Wanted, Answer, Stream]],
        failure: Callable[..., dict[str, Any]],
    ) -> Response:
        identity = request.headers.get("x-request-id", "")
        try:
            body = _parsed(await request.body())
            wanted, answer, stream = _checked(check, body)
        except Refused as refused:
            call = self.desk.decide(api, identity, "", 0)
            self.desk.began()
            self.desk.ended(str(refused.status))
            return _json(refused.status, failure(refused), call.headers)
        call = self.desk.decide(api, identity, wanted.model, tokens_of(wanted.prompt))
        self.desk.began()
        outcome = "dropped"
        try:
            await asyncio.sleep(self.desk.behaviour.latency)
            response, outcome = await self._answer(call, wanted, answer, stream, failure)
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            self.desk.ended(outcome)
        return response

    async def _answer(
        self, call: Call, wanted: Wanted, answer: Answer, stream: Stream, failure: Callable[..., dict[str, Any]]
    ) -> tuple[Response, str]:
        if call.wait > 0:
            refused = Refused(429, f"Rate limit reached; try again in {call.wait:.1f} s", "rate_limit_error")
            told = failure(refused, call.wait) if call.api == "gemini" else failure(refused)
            return _json(429, told, call.headers), "429"
        fault = call.fault
        if fault is not None and fault.isdigit():
            told = failure(Refused(int(fault), f"simulated {fault}", "api_error"))
            return _json(int(fault), told, call.headers), fault
        if fault == "hang":
            await asyncio.sleep(HANG_S)
        if fault == "html":
            return Response(PAGE, 200, media_type="text/html"), fault
        if wanted.streams:
            events = self._paced(stream(), cut=fault in {"cut", "drop"})
            return StreamingResponse(events, 200, call.headers, "text/event-stream"), fault or "answered"
        if self.desk.behaviour.tokens_per_second:
            await asyncio.sleep(min(self._output, wanted.most or self._output) / self.desk.behaviour.tokens_per_second)
        raw = orjson.dumps(answer())
        if fault in {"cut", "drop"}:
            headers = {**call.headers, "content-length": str(len(raw)), "content-type": JSON}
            return StreamingResponse(_half(raw if fault == "cut" else b""), 200, headers), fault
        return Response(raw, 200, call.headers, JSON), "answered"

    async def _paced(self, events: Iterator[bytes], *, cut: bool) -> AsyncIterator[bytes]:
        pause = 1 / self.desk.behaviour.tokens_per_second if self.desk.behaviour.tokens_per_second else 0.0
        for number, event in enumerate(events):
            if cut and number > 1:
                raise ConnectionResetError  # uvicorn closes the connection in the middle of the body
            yield event
            await asyncio.sleep(pause)


async def _half(raw: bytes) -> AsyncIterator[bytes]:
    yield raw[: len(raw) // 2]
    raise ConnectionResetError


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        refuse("We could not parse the JSON body of your request.")
    return body


def _checked(
    check: Callable[[dict[str, Any]], tuple[Wanted, Answer, Stream]], body: dict[str, Any]
) -> tuple[Wanted, Answer, Stream]:
    try:
        return check(body)
    except MALFORMED as error:
        raise Refused(400, f"the request is malformed: {type(error).__name__}") from None


def _json(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, dict(headers or {}), JSON)
