"""The credential of Azure where there is no key: an Entra token of the configuration, or of an application."""

from broker.clock import Clock
from workers.providers.azure_place import application, has_own_header, static_token
from workers.providers.catalog import ResolvedDeployment
from workers.providers.credential import Credential
from workers.providers.tokens import Bearer, Token, Tokens, Unchanging, ask
from workers.providers.transport import Transport


def make(target: ResolvedDeployment, transport: Transport, clock: Clock) -> Credential:
    """Return the credential, as `MakeCredential` says."""
    if token := static_token(target.deployment):
        return Unchanging((("authorization", f"Bearer {token}"),))
    if has_own_header(target.deployment):
        return Unchanging()
    known = application(target.deployment)
    form = {
        "grant_type": "client_credentials",
        "client_id": known.client_id,
        "client_secret": known.client_secret,
        "scope": known.scope,
    }

    async def fetch() -> Token:
        return await ask(transport, known.url, form, clock.now_ms() / 1000)

    return Bearer(Tokens(fetch, clock))
