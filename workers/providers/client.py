"""The provider client: one call through the dialect of its deployment and the transport. The façade of this folder."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import orjson

from broker.clock import Clock, SystemClock
from broker.config import Deployment, Media
from broker.errors import BadUpstreamResponse, ConfigError, RequestError, UpstreamTimeout, UpstreamUnreachable
from schemas.request import CHAT, COMPLETIONS
from workers.providers import openai
from workers.providers.base import Call, CallResult, OnChunk, Outbound, Partial, Progress, Usage
from workers.providers.catalog import ResolvedDeployment, resolve
from workers.providers.credential import Credential
from workers.providers.dialect import CHUNK, Dialect, Stream
from workers.providers.media import MediaFetcher
from workers.providers.openai_stream import written
from workers.providers.registry import CREDENTIALS, DIALECTS
from workers.providers.transport import MAX_BODY_BYTES, StreamedResponse, Transport
from workers.providers.usage import openai_usage, produced

OFF_LOOP_BYTES: Final = 256 << 10
"""Answers larger than this are parsed in a thread: about 1 ms of the loop's time."""

TAIL_SECONDS: Final = 0.1
"""How long a finished stream is read on for its end, so that the connection can be used again."""

UNAUTHORIZED: Final = 401
_OK: Final = range(200, 300)
_HEAD: Final = ("id", "created", "model", "service_tier", "system_fingerprint")
"""Fields that are the same in all chunks of a stream."""


@dataclass(slots=True)
class _Target:
    """What is worked out once per deployment."""

    deployment: Deployment
    resolved: ResolvedDeployment
    dialect: Dialect
    credential: Credential | None
    """None where its headers authorise a call as they are."""
    fetches: bool
    """Whether files that a body names by URL go out as bytes."""


class HttpProviderClient:
    """`ProviderClient` over HTTP; the contract stands on the protocol. Closes the transport and the media it is given.

    Without `media` nothing is fetched for a provider that takes files as bytes only.
    """

    def __init__(self, transport: Transport, *, clock: Clock | None = None, media: MediaFetcher | None = None) -> None:
        self._transport = transport
        self._media = media or MediaFetcher(Media())
        self._clock = clock or SystemClock()
        self._targets: dict[str, _Target] = {}

    async def call(self, call: Call, on_chunk: OnChunk | None = None) -> CallResult:
        """Make one call, as the protocol says."""
        target = self._targets.get(call.deployment.name)
        if target is None or target.deployment is not call.deployment:
            call.progress.unsent = True
            target = self._resolve(call.deployment)
        call.progress.unsent = True
        if call.timeout <= 0:
            raise UpstreamTimeout("no time is left for the call")
        try:
            if target.fetches:
                call = await self._inlined(call)
            if on_chunk is not None and target.dialect.streamed(call.endpoint):
                return await self._stream(target, call, on_chunk)
            return await self._post(target, call)
        except RequestError as error:
            if error.status == UNAUTHORIZED and target.credential is not None:
                target.credential.refused()
            for secret in target.resolved.secrets:
                error.message = error.message.replace(secret, "***")
            if chunks := call.progress.chunks:
                error.message = f"the stream broke after {chunks} chunk{'s'[: chunks > 1]}: {error.message}"
            error.args = (error.message,)
            raise

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()
        await self._media.close()

    async def _inlined(self, call: Call) -> Call:
        """Return the call with bytes where its body names files by URL, and with the time that is left."""
        started = self._clock.monotonic()
        body = await self._media.inlined(call.body, call.timeout)
        if body is call.body:
            return call
        return replace(call, body=body, timeout=max(call.timeout - (self._clock.monotonic() - started), 0.001))

    def _resolve(self, deployment: Deployment) -> _Target:
        try:
            resolved = resolve(deployment)
            make = CREDENTIALS.get(resolved.provider.auth) if deployment.api_key is None else None
            credential = make(resolved, self._transport, self._clock) if make is not None else None
        except ConfigError as error:
            raise UpstreamUnreachable(str(error)) from None
        except Exception as error:
            raise _broken(deployment, "it cannot be prepared", error) from error
        dialect = DIALECTS[resolved.provider.dialect]
        fetches = resolved.provider.inlines_media or self._media.serves(deployment.provider)
        target = self._targets[deployment.name] = _Target(deployment, resolved, dialect, credential, fetches)
        return target

    async def _authorised(
        self, credential: Credential, call: Call, out: Outbound
    ) -> tuple[tuple[tuple[str, str], ...], float]:
        """Return the request's headers with those of a credential, and the seconds that are left for the call."""
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(call.timeout):
                more = await credential.headers(out)
        except TimeoutError:
            raise UpstreamTimeout("no token came in the time of the call") from None
        except RequestError:
            raise
        except Exception as error:
            raise _broken(call.deployment, "its calls cannot be authorised", error) from error
        return (*out.headers, *more), max(call.timeout - (self._clock.monotonic() - started), 0.001)

    async def _post(self, target: _Target, call: Call) -> CallResult:
        out = target.dialect.outbound(target.resolved, call.endpoint, call.body, streams=False)
        more, timeout = out.headers, call.timeout
        if target.credential is not None:
            more, timeout = await self._authorised(target.credential, call, out)
        headers = _headers(target, call, more)
        call.progress.unsent = False
        answer = await self._transport.post(out.url, headers=headers, body=out.body, timeout=timeout)
        told = openai.told_limits(target.resolved, answer.headers)
        if answer.status not in _OK:
            raise target.dialect.error(answer.status, told, answer.body, self._clock.now_ms() / 1000)
        return await _read(target, call, answer.body, told)

    async def _stream(self, target: _Target, call: Call, on_chunk: OnChunk) -> CallResult:
        started = self._clock.monotonic()
        out = target.dialect.outbound(target.resolved, call.endpoint, call.body, streams=True)
        more, timeout = out.headers, call.timeout
        if target.credential is not None:
            more, timeout = await self._authorised(target.credential, call, out)
        headers = _headers(target, call, more)
        call.progress.unsent = False
        async with self._transport.stream(
            out.url,
            headers=headers,
            body=out.body,
            timeout=timeout,
            read_timeout=min(timeout, call.deployment.stream_timeout or timeout),
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
        """Hand chunks on as they come, and return the whole.

        Nothing is handed on before content comes: a reader who was told a role and nothing else would see a second
        beginning where the stream breaks there and is started again, and whoever got nothing can be served elsewhere.
        Usage is handed on once, at the end: some upstreams tell it with every chunk, some never.
        """
        stream, progress = target.dialect.stream(target.resolved, call.endpoint, call.body), call.progress
        progress.follow(partial(_produced, target.resolved, call.body, stream))
        held: list[bytes] = []
        pieces = aiter(answer)
        while (piece := await _next(pieces, stream)) is not None:
            for chunk, plain in stream.feed(piece):
                if not plain:
                    continue
                if not stream.begun:
                    held.append(chunk)
                    continue
                if progress.ttft_ms is None:
                    progress.ttft_ms = round((self._clock.monotonic() - started) * 1000)
                    await _hand_on(held, on_chunk, progress)
                    held = []
                progress.chunks += 1
                await on_chunk(chunk)
            if stream.done:
                await _drain(answer)
                break
        body = stream.body()
        told = openai.told_limits(target.resolved, answer.headers)
        found = openai.result(target.resolved, call.endpoint, call.body, body, written(body), told)
        if _wants_usage(call):
            held.append(_usage_chunk(body, found.usage))
        await _hand_on(held, on_chunk, progress)
        return replace(found, ttft_ms=progress.ttft_ms)


async def _next(pieces: AsyncIterator[bytes], stream: Stream) -> bytes | None:
    """Return the next bytes; None at the end, and where the connection breaks once nothing of the answer is missing."""
    try:
        return await anext(pieces)
    except StopAsyncIteration:
        return None
    except RequestError:
        if stream.finished():
            return None
        raise


async def _hand_on(chunks: list[bytes], on_chunk: OnChunk, progress: Progress) -> None:
    for chunk in chunks:
        progress.chunks += 1
        await on_chunk(chunk)


def _produced(
    target: ResolvedDeployment, asked: Mapping[str, Any], stream: Stream, ttft_ms: int | None
) -> Partial | None:
    """Return what a stream had produced; None where neither content nor usage came."""
    so_far = stream.so_far()
    model, tier = so_far.body.get("model"), so_far.body.get("service_tier")
    if not stream.begun and not isinstance(so_far.body.get("usage"), dict):
        return None
    return Partial(
        model if isinstance(model, str) and model else target.deployment.model,
        produced(asked, so_far),
        tier if isinstance(tier, str) else None,
        ttft_ms,
    )


def _wants_usage(call: Call) -> bool:
    """Whether the caller asked for the usage of a stream; a response (`/v1/responses`) tells it anyway."""
    options = call.body.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    return asked and call.endpoint in {CHAT, COMPLETIONS}


def _usage_chunk(body: Mapping[str, Any], usage: Usage) -> bytes:
    """Return the last chunk of a stream, with its usage alone, as the upstream told it or as it was estimated."""
    kind = "text_completion" if body["object"] == "text_completion" else CHUNK
    head = {name: body[name] for name in _HEAD if name in body}
    told = openai_usage(usage) if usage.estimated else body["usage"]
    return orjson.dumps({**head, "object": kind, "choices": [], "usage": told})


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


def _broken(deployment: Deployment, what: str, error: Exception) -> UpstreamUnreachable:
    """Return the error of a deployment where something failed that should not; its text may hold a secret."""
    text = f": {error}" if isinstance(error, ImportError) else ""
    return UpstreamUnreachable(f"deployment {deployment.name}: {what} ({type(error).__name__}{text})")


def _headers(target: _Target, call: Call, more: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Add the request's own headers. An id is any text; what HTTP cannot carry of it is percent-encoded."""
    name = call.request_id
    base = target.resolved.headers
    if more:
        own = {header for header, _ in more}
        base = (*(pair for pair in base if pair[0] not in own), *more)
    headers = [*base, ("x-request-id", name if _is_plain(name) else quote(name))]
    if call.traceparent and _is_plain(call.traceparent):
        headers.append(("traceparent", call.traceparent))
    return headers


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()
