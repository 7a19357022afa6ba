"""The credential of Vertex AI where there is no key: tokens of a service account, or of a user's refresh token.

The file is read once, and its key used once a token, in a thread: the event loop never waits, and of the calls only
those that have no token yet. google-auth signs, and does nothing else. Sources:
developers.google.com/identity/protocols/oauth2/service-account (the assertion), …/oauth2/web-server (refresh tokens).
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from broker.clock import Clock
from broker.config import Deployment
from broker.errors import ConfigError, UpstreamUnreachable
from workers.providers import vertex_place
from workers.providers.catalog import ResolvedDeployment
from workers.providers.credential import Credential
from workers.providers.place import token_url
from workers.providers.tokens import Bearer, Token, Tokens, Unchanging, ask
from workers.providers.transport import Transport

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_SECONDS: Final = 3600
"""The longest life of an assertion that the service accepts."""


class _File:
    """What a credential file says, read when first asked for."""

    def __init__(self, text: str, deployment: Deployment) -> None:
        self._text = text
        self._deployment = deployment
        self._said: Mapping[str, Any] | None = None

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the header that names the project a user's calls count against, where the file names one."""
        project = self._said.get("quota_project_id") if self._said else None
        return (("x-goog-user-project", project),) if isinstance(project, str) and project else ()

    def url_and_form(self, now: int) -> tuple[str, dict[str, str]]:
        """Return where to trade what for a token; `now` is unix seconds. It reads and signs: call it in a thread.

        Raises `ConfigError`.
        """
        if self._said is None:
            text = self._text
            text = text if text.startswith("{") else vertex_place.read(text, self._deployment)
            self._said = vertex_place.parsed(text, self._deployment)
        said = self._said
        told = said.get("token_uri")
        url = told if isinstance(told, str) and told else vertex_place.TOKEN_URL
        url = token_url(url, self._deployment, "vertex_credentials.token_uri")
        if said["type"] == "service_account":
            return url, {"grant_type": GRANT, "assertion": self._assertion(said, url, now)}
        names = ("client_id", "client_secret", "refresh_token")
        return url, {"grant_type": "refresh_token", **{name: said[name] for name in names}}

    def _assertion(self, said: Mapping[str, Any], url: str, now: int) -> str:
        from google.auth import crypt, jwt  # noqa: PLC0415 - 90 ms that deployments without Vertex do not pay

        claims = {
            "iss": said["client_email"],
            "scope": SCOPE,
            "aud": url,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        }
        try:
            signer = crypt.RSASigner.from_string(  # type: ignore[no-untyped-call]
                said["private_key"], said.get("private_key_id")
            )
            signed: bytes = jwt.encode(signer, claims)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError):
            name = self._deployment.name
            raise ConfigError(f"deployment {name}: `vertex_credentials`: private_key is not a key in PEM") from None
        return signed.decode()


def make(target: ResolvedDeployment, transport: Transport, clock: Clock) -> Credential:
    """Return the credential, as `MakeCredential` says; a file is not opened yet."""
    text = vertex_place.credential(target.deployment)
    if not text:
        return Unchanging()
    file = _File(text, target.deployment)

    async def fetch() -> Token:
        now = clock.now_ms() / 1000
        try:
            url, form = await asyncio.to_thread(file.url_and_form, int(now))
        except ConfigError as error:
            raise UpstreamUnreachable(str(error)) from None
        return await ask(transport, url, form, now)

    return Bearer(Tokens(fetch, clock), file.headers)
