"""Sends requests and hands out replies: the machinery under every call of the client. Knows the envelope and ports."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from broker.client.connect import LogPorts
from broker.client.mailbox import Mailbox, Waiting
from broker.client.outbox import Backoff, Letter, Outbox
from broker.client.request import Options, Request, Sender
from broker.clock import Clock
from broker.envelope import encode_cancel, encode_request
from broker.errors import InvalidRequest, ModelNotFound, Unavailable
from broker.ports import SendFailure
from broker.topics import TopicNames

DEADLINE_S: Final = 86_400.0
"""Deadline of a request that names none, unless its alias says otherwise (`broker.config.models.Alias`)."""

GRACE_S: Final = 60.0
"""How much later than its deadline a reply may arrive before it counts as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom the requests are from; the key never shows."""

    key: str | None
    alias_names: Mapping[str, str]

    def __repr__(self) -> str:
        return "Identity(key=***)" if self.key else "Identity()"


def lifetime(options: Options) -> float:
    """Seconds after which a reply to a request with these options is lost."""
    return (DEADLINE_S if options.deadline is None else options.deadline) + GRACE_S


class Exchange:
    """One producer, one mailbox, and the order that loses no reply: wait first, then send."""

    def __init__(self, ports: LogPorts, names: TopicNames, identity: Identity, clock: Clock, backoff: Backoff) -> None:
        self._ports = ports
        self._names = names
        self._identity = identity
        self._clock = clock
        self._outbox = Outbox(ports.producer, backoff)
        self._mailbox = Mailbox(ports.open_reader, names.replies, backoff)
        self._known: set[str] = set()
        self._sender: Sender | None = None

    @property
    def partition(self) -> int:
        """Partition the replies come to; -1 until opened."""
        return self._mailbox.partition

    @property
    def waiting(self) -> int:
        """Requests whose final reply has not come."""
        return self._mailbox.waiting

    async def open(self) -> None:
        """Connect and take a reply partition. Raises `Unavailable`."""
        await self._ports.producer.start()
        try:
            await self._mailbox.open()
        except BaseException:
            await self._ports.producer.stop()
            raise
        self._sender = Sender(
            reply_to=self._names.replies,
            reply_partition=self._mailbox.partition,
            key=self._identity.key,
            alias_names=self._identity.alias_names,
        )

    async def close(self) -> None:
        """Send what is queued and disconnect; whoever still waits gets `Unavailable`. Harmless when closed."""
        if self._sender is None:
            return
        self._sender = None
        await self._outbox.close()
        await self._mailbox.close()
        await self._ports.producer.stop()

    async def launch(self, request: Request, waiting: Waiting, *, sent: Callable[[], None] | None = None) -> None:
        """Send a request; `waiting.finish` is told how it ends, `sent` when the log has it.

        Raises `ModelNotFound` where the alias has no topic, `InvalidRequest` and `Unavailable`; then nothing was sent.
        """
        if self._sender is None:
            raise Unavailable("the client is not open")
        addressed = self._sender.address(request, waiting.request_id, self._clock.now_ms())
        record = encode_request(addressed, self._names)
        if record.topic not in self._known:
            await self._look_up(record.topic, request.alias)

        def told(failure: SendFailure | None) -> None:
            if failure is not None:
                self._mailbox.settle(waiting, InvalidRequest(f"the log refuses the request: {failure.reason}"))
            elif sent is not None:
                sent()

        def failed(reason: str) -> None:
            waiting.trouble = f"not sent: {reason}"

        self._mailbox.expect(waiting)
        self._outbox.post(Letter(record, told, lambda: self._mailbox.expects(waiting), failed))

    def forget(self, waiting: Waiting) -> None:
        """Stop waiting; the request itself goes on."""
        self._mailbox.forget(waiting)

    async def cancel(self, request_id: str) -> None:
        """Write a cancel control. Raises `Unavailable`."""
        record = encode_cancel(request_id, self._names, self._clock.now_ms())
        (failure,) = await self._ports.producer.send_all([record])
        if failure is not None:
            raise Unavailable(f"the cancel of {request_id} could not be written: {failure.reason}")

    async def _look_up(self, topic: str, alias: str) -> None:
        # Without this a misspelt alias would only show as a send that never succeeds.
        if not await self._mailbox.exists(topic):
            raise ModelNotFound(f"no alias {alias!r}: topic {topic} does not exist", param="model")
        self._known.add(topic)
