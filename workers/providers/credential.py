"""What authorises a call where a header that never changes does not: signatures, tokens that expire. The seam of both.

One module an authentication style implements it; the registry knows them by the `auth` of a provider's row.
"""

from collections.abc import Callable
from typing import Final, Protocol

from broker.clock import Clock
from workers.providers.base import Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.transport import Transport

TOKEN_SECONDS: Final = 10.0
"""How long a token service is waited for."""


class Credential(Protocol):
    """Authorises the calls of one deployment. One object a deployment and process, used by thousands of tasks."""

    async def headers(self, out: Outbound) -> tuple[tuple[str, str], ...]:
        """Return the headers that authorise this very call; they go on top of all others.

        It may wait for a token service, at most `TOKEN_SECONDS`, and asks once for any number of calls that wait.
        Raises `UpstreamError` with status 401 where the service refuses, whatever its own status for that is (it is the
        deployment's fault, not the caller's), and with the service's own where it is over a limit or broken;
        `UpstreamUnreachable`, `UpstreamTimeout` or `BadUpstreamResponse` where it cannot be asked. No secret is in a
        message.
        """
        ...

    def refused(self) -> None:
        """Take note that the upstream answered a call with 401: a token that was kept is dropped, once."""
        ...


MakeCredential = Callable[[ResolvedDeployment, Transport, Clock], Credential]
"""Raises `ConfigError` naming the deployment and the field that is missing."""
