"""The provider client: one call through the dialect of its deployment and the transport. The façade of this folder."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import orjson

from broker.clock import Clock, SystemClock
from broker.config import Deployment
from broker.errors import BadUpstreamResponse, ConfigError, RequestError, UpstreamTimeout, UpstreamUnreachable
from workers.providers import openai
from workers.providers.base import Call, CallResult, OnChunk, Outbound
from workers.providers.catalog import ResolvedDeployment, resolve
from workers.providers.credential import Credential
from workers.providers.dialect import Dialect
from workers.providers.registry import CREDENTIALS, DIALECTS
from workers.providers.transport import MAX_BODY_BYTES, StreamedResponse, Transport

OFF_LOOP_BYTES: Final = 256 << 10
"""Answers larger than this are parsed in a thread: about 1 ms of the loop's time."""

TAIL_SECONDS: Final = 0.1
"""How long a finished stream is read on for its end, so that the connection can be used again."""

_OK: Final = range(200, 300)


@dataclass(slots=True)
class _Target:
    """What is worked out once per deployment."""

    deployment: Deployment
    resolved: ResolvedDeployment
    dialect: Dialect
    credential: Credential | None
    """None where its headers authorise a call as they are."""


class HttpProviderClient:
    """`ProviderClient` over HTTP; the contract stands on the protocol. Closes the transport it is given."""

    def __init__(self, transport: Transport, *, clock: Clock | None = None) -> None:
        self._transport = transport
        self._clock = clock or SystemClock()
        self._targets: dict[str, _Target] = {}

    async def call(self, call: Call, on_chunk: OnChunk | None = None) -> CallResult:
        """Make one call, as the protocol says."""
        target = self._targets.get(call.deployment.name)
        if target is None or target.deployment is not call.deployment:
            target = self._resolve(call.deployment)
        if call.timeout <= 0:
            raise UpstreamTimeout("no time is left for the call")
        try:
            if on_chunk is not None and target.dialect.streamed(call.endpoint):
                return await self._stream(target, call, on_chunk)
            return await self._post(target, call)
        except RequestError as error:
            for secret in target.resolved.secrets:
                error.message = error.message.replace(secret, "***")
            error.args = (error.message,)
            raise

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    def _resolve(self, deployment: Deployment) -> _Target:
        try:
            resolved = resolve(deployment)
            make = CREDENTIALS.get(resolved.provider.auth) if deployment.api_key is None else None
            credential = make(resolved, self._transport, self._clock) if make is not None else None
        except ConfigError as error:
            raise UpstreamUnreachable(str(error)) from None
        dialect = DIALECTS[resolved.provider.dialect]
        target = self._targets[deployment.name] = _Target(deployment, resolved, dialect, credential)
        return target

    async def _post(self, target: _Target, call: Call) -> CallResult:
        out = target.dialect.outbound(target.resolved, call.endpoint, call.body, streams=False)
        headers = await _headers(target, call, out)
        answer = await self._transport.post(out.url, headers=headers, body=out.body, timeout=call.timeout)
        told = openai.told_limits(target.resolved, answer.headers)
        if answer.status not in _OK:
            raise target.dialect.error(answer.status, told, answer.body, self._clock.now_ms() / 1000)
        return await _read(target, call, answer.body, told)

    async def _stream(self, target: _Target, call: Call, on_chunk: OnChunk) -> CallResult:
        started = self._clock.monotonic()
        out = target.dialect.outbound(target.resolved, call.endpoint, call.body, streams=True)
        headers = await _headers(target, call, out)
        async with self._transport.stream(
            out.url,
            headers=headers,
            body=out.body,
            timeout=call.timeout,
            read_timeout=min(call.timeout, call.deployment.stream_timeout or call.timeout),
        ) as answer:
            content_type = answer.headers.get("content-type", "")
            told = openai.told_limits(target.resolved, answer.headers)
            if answer.status not in _OK:
                raise target.dialect.error(answer.status, told, await _whole(answer), self._clock.now_ms() / 1000)
            if "json" in content_type or "html" in content_type:
                return await _read(target, call, await _whole(answer), told)
            return await self._follow(target, call, answer, on_chunk, started)

    async def _follow(
        self,
        target: _Target,
        call: Call,
        answer: StreamedResponse,
        on_chunk: OnChunk,
        started: float,
    ) -> CallResult:
        completion, first = target.dialect.stream(target.resolved, call.endpoint, call.body), None
        options = call.body.get("stream_options")
        wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        async for piece in answer:
            for chunk, plain in completion.feed(piece):
                if first is None:
                    first = self._clock.monotonic()
                if plain or wants_usage:
                    await on_chunk(chunk)
            if completion.done:
                await _drain(answer)
                break
        body = completion.body()
        raw = orjson.dumps(body)
        told = openai.told_limits(target.resolved, answer.headers)
        found = openai.result(target.resolved, call.endpoint, call.body, body, raw, told)
        return CallResult(
            found.body,
            found.model,
            found.usage,
            ttft_ms=None if first is None else round((first - started) * 1000),
            service_tier=found.service_tier,
            stated_cost=found.stated_cost,
            headers=found.headers,
        )


async def _read(target: _Target, call: Call, raw: bytes, headers: Mapping[str, str]) -> CallResult:
    read, resolved = target.dialect.answer, target.resolved
    if len(raw) <= OFF_LOOP_BYTES:
        return read(resolved, call.endpoint, call.body, raw, headers)
    return await asyncio.to_thread(read, resolved, call.endpoint, call.body, raw, headers)


async def _whole(answer: StreamedResponse) -> bytes:
    """Read a body that is no stream."""
    content = bytearray()
    async for piece in answer:
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise BadUpstreamResponse(f"the upstream's answer is larger than {MAX_BODY_BYTES} bytes")
    return bytes(content)


async def _drain(answer: StreamedResponse) -> None:
    """Read what follows `[DONE]`: the end of the body, unless the server keeps it to itself."""
    try:
        async with asyncio.timeout(TAIL_SECONDS):
            async for _ in answer:
                pass
    except (TimeoutError, RequestError):
        return  # the answer is whole; the connection is closed instead of kept


async def _headers(target: _Target, call: Call, out: Outbound) -> list[tuple[str, str]]:
    """Add the request's own headers. An id is any text; what HTTP cannot carry of it is percent-encoded."""
    name = call.request_id
    base = target.resolved.headers
    more = out.headers if target.credential is None else (*out.headers, *await target.credential.headers(out))
    if more:
        own = {header for header, _ in more}
        base = (*(pair for pair in base if pair[0] not in own), *more)
    headers = [*base, ("x-request-id", name if _is_plain(name) else quote(name))]
    if call.traceparent and _is_plain(call.traceparent):
        headers.append(("traceparent", call.traceparent))
    return headers


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()
