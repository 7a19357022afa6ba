"""What authorises a call where a header that never changes does not: signatures, tokens that expire. The seam of both.

One module an authentication style implements it; the registry knows them by the `auth` of a provider's row.
"""

from collections.abc import Callable
from typing import Protocol

from broker.clock import Clock
from workers.providers.base import Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.transport import Transport


class Credential(Protocol):
    """Authorises the calls of one deployment. One object a deployment and process, used by thousands of tasks."""

    async def headers(self, out: Outbound) -> tuple[tuple[str, str], ...]:
        """Return the headers that authorise this very call; they go on top of all others.

        It may wait for a token service, at most `TOKEN_SECONDS`, and asks once for any number of calls that wait.
        Raises `UpstreamError` with the service's own status where it refuses (401 where it says no more: the credential
        is wrong), `UpstreamUnreachable` or `UpstreamTimeout` where it cannot be asked. No secret is in a message.
        """
        ...


MakeCredential = Callable[[ResolvedDeployment, Transport, Clock], Credential]
"""Raises `ConfigError` naming the deployment and the field that is missing."""
