"""A request that was sent, and the reply that will come."""

import asyncio

from broker.client.errors import ReplyTimeout
from broker.client.exchange import Exchange
from broker.client.mailbox import Result
from broker.envelope import Reply
from broker.errors import BrokerError


class Handle:
    """What `submit` returns. The reply waits in the handle, however late it is read."""

    def __init__(self, exchange: Exchange, request_id: str, result: asyncio.Future[Result]) -> None:
        self._exchange = exchange
        self._result = result
        self.request_id = request_id

    def __repr__(self) -> str:
        return f"Handle({self.request_id!r}, {'done' if self.done() else 'waiting'})"

    def done(self) -> bool:
        """Whether `result` would return, or raise, at once."""
        return self._result.done()

    async def result(self, timeout: float | None = None) -> Reply:
        """Wait for the final reply, whatever its status, for at most `timeout` seconds (None: until it is lost).

        Raises `ReplyTimeout`, after which it may be asked again, and `Unavailable` when the client was closed.
        """
        try:
            async with asyncio.timeout(timeout):
                result = await asyncio.shield(self._result)
        except TimeoutError:
            raise ReplyTimeout(self.request_id, timeout or 0.0) from None
        if isinstance(result, BrokerError):
            raise result
        return result

    async def cancel(self) -> None:
        """Ask for the request to be cancelled, queued or running; `result` then returns 499. Raises `Unavailable`."""
        await self._exchange.cancel(self.request_id)
