"""The client that producers import: publish a request, await its reply, stream it, map over many.

A façade over `exchange`; where its Kafka comes from is `connect`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from broker.client.connect import LogPorts, kafka_ports
from broker.client.exchange import Exchange, Identity, lifetime
from broker.client.handle import Handle
from broker.client.mailbox import Result, Waiting
from broker.client.mapping import Mapper, Requests, new_id, reply_of
from broker.client.models import ChatCompletion, Completion, Embeddings
from broker.client.outbox import Backoff
from broker.client.request import DEFAULTS, Options, Request
from broker.client.stream import ChatStream, StreamState, answered
from broker.clock import Clock, SystemClock
from broker.config import Kafka
from broker.envelope import Reply
from broker.errors import BrokerError
from broker.topics import TopicNames
from schemas.request import COMPLETIONS, EMBEDDINGS

TIMEOUT_S: Final = 600.0
"""How long a call waits for its reply unless told; the OpenAI client's own default."""

Messages = str | Sequence[Mapping[str, Any]]


class BrokerClient:
    """`async with BrokerClient("127.0.0.1:4001", key="sk-…") as c: answer = await c.chat("local", "Hello")`.

    `bootstrap_servers` is `host:port[,host:port]`; `kafka`, the section of a configuration (TLS, SASL, topic prefix),
    replaces it. `key` is a virtual key and travels in every request. `alias_names` maps names that are no alias
    (`openai/gpt-4o`) to one. `timeout` and all other times are seconds. `ports` replaces Kafka, for tests. One client
    serves any number of tasks of one event loop; it reads one reply partition, from its end.

    `chat`, `complete`, `embed` and `stream` raise what the reply says (`RequestFailed`); `submit` and `map` give
    replies and leave the judging of `reply.status` to the caller, because one bad line must not end a job of many.
    """

    def __init__(  # noqa: PLR0913 - keyword-only settings, each with its default
        self,
        bootstrap_servers: str = "127.0.0.1:4001",
        *,
        kafka: Kafka | None = None,
        key: str | None = None,
        timeout: float = TIMEOUT_S,
        alias_names: Mapping[str, str] | None = None,
        ports: LogPorts | None = None,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        kafka = kafka or Kafka(bootstrap_servers=bootstrap_servers)
        self._timeout = timeout
        self._servers = kafka.bootstrap_servers
        self._exchange = Exchange(
            ports or kafka_ports(kafka),
            TopicNames(kafka.topic_prefix),
            Identity(key=key, alias_names=dict(alias_names or {})),
            clock or SystemClock(),
            backoff or Backoff(),
        )

    def __repr__(self) -> str:
        return f"BrokerClient({self._servers!r}, reply_partition={self._exchange.partition})"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect and take a reply partition. Raises `Unavailable`."""
        await self._exchange.open()

    async def close(self) -> None:
        """Send what is queued and disconnect; whoever still waits gets `Unavailable`. Harmless when closed."""
        await self._exchange.close()

    @property
    def waiting(self) -> int:
        """Requests whose final reply has not come."""
        return self._exchange.waiting

    async def chat(
        self,
        alias: str,
        messages: Messages,
        *,
        options: Options = DEFAULTS,
        timeout: float | None = None,
        **params: Any,  # noqa: ANN401 - the parameters of OpenAI's endpoint, and the provider's own
    ) -> ChatCompletion:
        """Answer a conversation; `messages` as OpenAI documents them, or one text as the user's only message.

        Raises `RequestFailed`, `ReplyTimeout`, `ModelNotFound`, `InvalidRequest`, `Unavailable`. The deadline is the
        timeout unless `options` names one: what nobody waits for any more is not started.
        """
        request = Request(alias=alias, body={"messages": _messages(messages), **params}, options=options)
        return ChatCompletion.of(await self._call(request, timeout))

    async def complete(
        self,
        alias: str,
        prompt: str | list[str],
        *,
        options: Options = DEFAULTS,
        timeout: float | None = None,
        **params: Any,  # noqa: ANN401 - the parameters of OpenAI's endpoint, and the provider's own
    ) -> Completion:
        """Continue a text (`/v1/completions`); raises what `chat` raises."""
        request = Request(alias=alias, body={"prompt": prompt, **params}, endpoint=COMPLETIONS, options=options)
        return Completion.of(await self._call(request, timeout))

    async def embed(
        self,
        alias: str,
        text: str | list[str],
        *,
        options: Options = DEFAULTS,
        timeout: float | None = None,
        **params: Any,  # noqa: ANN401 - the parameters of OpenAI's endpoint, and the provider's own
    ) -> Embeddings:
        """Embed one text or several (`/v1/embeddings`); raises what `chat` raises."""
        request = Request(alias=alias, body={"input": text, **params}, endpoint=EMBEDDINGS, options=options)
        return Embeddings.of(await self._call(request, timeout))

    def stream(
        self,
        alias: str,
        messages: Messages,
        *,
        options: Options = DEFAULTS,
        timeout: float | None = None,
        **params: Any,  # noqa: ANN401 - the parameters of OpenAI's endpoint, and the provider's own
    ) -> ChatStream:
        """Stream a chat completion; it is sent when the iteration begins. Iteration raises what `chat` raises."""
        seconds = self._timeout if timeout is None else timeout
        body = {"messages": _messages(messages), **params, "stream": True}
        request = _within(Request(alias=alias, body=body, options=options), seconds)
        waiting = Waiting(new_id(), lambda _: None, timeout=seconds)

        async def begin(state: StreamState) -> None:
            waiting.finish, waiting.chunk = state.finish, state.chunk
            await self._exchange.launch(request, waiting)

        return ChatStream(
            waiting.request_id,
            begin=begin,
            forget=lambda: self._exchange.forget(waiting),
            cancel=lambda: self.cancel(waiting.request_id),
        )

    async def submit(self, request: Request) -> Handle:
        """Send a request and return when the log has it, with a handle to its reply.

        Raises `ModelNotFound`, `InvalidRequest` (too large for the log, or its id is in use here), `Unavailable`, and
        `ReplyTimeout` where Kafka stayed away until the deadline had passed.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Result] = loop.create_future()
        sent: asyncio.Future[bool] = loop.create_future()
        waiting = Waiting(request.request_id or new_id(), _setter(result), timeout=lifetime(request.options))
        try:
            await self._exchange.launch(request, waiting, sent=lambda: sent.set_result(True))
            await asyncio.wait((sent, result), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._exchange.forget(waiting)
            raise
        if result.done() and isinstance(failure := result.result(), BrokerError):
            raise failure
        return Handle(self._exchange, waiting.request_id, result)

    async def map(
        self, requests: Iterable[Request] | AsyncIterable[Request], *, in_flight: int = 256
    ) -> AsyncGenerator[Reply, None]:
        """Send many and yield their final replies as they come, at most `in_flight` unanswered or unread at once.

        Takes constant memory however many there are. `reply.request_id` and `reply.metadata` tell which one it is. A
        request that never got a final reply yields one made here, with `attempts` 0: 408 `reply_timeout`, 404
        `model_not_found`, 400 `invalid_request` (too large), 503 `unavailable`.
        """
        async with aclosing(self.outcomes(requests, in_flight=in_flight)) as outcomes:
            async for request, result in outcomes:
                yield result if isinstance(result, Reply) else reply_of(request, result)

    def outcomes(self, requests: Requests, *, in_flight: int) -> AsyncGenerator[tuple[Request, Result], None]:
        """Like `map`; beside each result its request (with its id, without its body), and our own errors as such."""
        return Mapper(self._exchange, in_flight).run(requests)

    async def cancel(self, request_id: str) -> None:
        """Ask for a request to be cancelled, queued or running; its final reply then is 499 `cancelled`.

        One that is answered already stays answered. Raises `Unavailable` where the control cannot be written.
        """
        await self._exchange.cancel(request_id)

    async def _call(self, request: Request, timeout: float | None) -> Reply:
        seconds = self._timeout if timeout is None else timeout
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiting = Waiting(new_id(), _setter(result), timeout=seconds)
        try:
            await self._exchange.launch(_within(request, seconds), waiting)
            return answered(await result)
        finally:
            self._exchange.forget(waiting)


def _within(request: Request, seconds: float) -> Request:
    if request.options.deadline is not None:
        return request
    return replace(request, options=replace(request.options, deadline=seconds))


def _messages(messages: Messages) -> Sequence[Mapping[str, Any]]:
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages


def _setter(future: asyncio.Future[Result]) -> Callable[[Result], None]:
    def finish(result: Result) -> None:
        if not future.done():
            future.set_result(result)

    return finish
