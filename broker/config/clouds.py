"""What the clouds want beside a key: regions, projects, versions, credentials of their own. Imports pydantic only."""

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Section(BaseModel):
    """Base of every section: immutable, and strict about its names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Aws(Section):
    """How Bedrock is called: signed with an access key, or with a Bedrock API key, which stands in `api_key`."""

    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,40}$")
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    endpoint: str | None = None
    """In place of the region's public address: a private endpoint."""


class Azure(Section):
    """How Azure OpenAI is called: by a key in `api_key`, by a token, or by an application registered in Entra."""

    api_version: str | None = Field(default=None, pattern=r"^(v1|latest|preview|\d{4}-\d\d-\d\d(-preview)?)$")
    ad_token: SecretStr | None = None
    tenant_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9.-]{1,100}$")
    client_id: str | None = None
    client_secret: SecretStr | None = None
    scope: str | None = None
    authority: str | None = None
    """Base URL of the token service of a sovereign cloud."""


class Vertex(Section):
    """How Vertex AI is called: by a service account, or by an API key (express mode), which stands in `api_key`."""

    project: str | None = Field(default=None, pattern=r"^[a-z0-9:.-]{1,100}$")
    location: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,40}$")
    credentials: SecretStr | None = None
    """A credential file's JSON, or the path of that file."""


class Source(NamedTuple):
    """Where a field comes from: LiteLLM's parameter, and the environment variables the cloud's own tools read."""

    parameter: str
    variables: tuple[str, ...] = ()
    credential: bool = True
    """Whether it proves who calls: such a variable serves only where the file names none of this cloud's own."""


AWS: Final[Mapping[str, Source]] = {
    "region": Source("aws_region_name", ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"), credential=False),
    "access_key_id": Source("aws_access_key_id", ("AWS_ACCESS_KEY_ID",)),
    "secret_access_key": Source("aws_secret_access_key", ("AWS_SECRET_ACCESS_KEY",)),
    "session_token": Source("aws_session_token", ("AWS_SESSION_TOKEN",)),
    "endpoint": Source("aws_bedrock_runtime_endpoint", ("AWS_BEDROCK_RUNTIME_ENDPOINT",), credential=False),
}
AZURE: Final[Mapping[str, Source]] = {
    "api_version": Source("api_version", ("AZURE_API_VERSION",), credential=False),
    "ad_token": Source("azure_ad_token", ("AZURE_AD_TOKEN",)),
    "tenant_id": Source("tenant_id", ("AZURE_TENANT_ID",)),
    "client_id": Source("client_id", ("AZURE_CLIENT_ID",)),
    "client_secret": Source("client_secret", ("AZURE_CLIENT_SECRET",)),
    "scope": Source("azure_scope", ("AZURE_SCOPE",), credential=False),
    "authority": Source("azure_authority_host", ("AZURE_AUTHORITY_HOST",), credential=False),
}
VERTEX: Final[Mapping[str, Source]] = {
    "project": Source("vertex_project", ("VERTEXAI_PROJECT", "GOOGLE_CLOUD_PROJECT"), credential=False),
    "location": Source("vertex_location", ("VERTEXAI_LOCATION", "GOOGLE_CLOUD_LOCATION"), credential=False),
    "credentials": Source("vertex_credentials", ("VERTEXAI_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS")),
}

CLOUDS: Final[Mapping[str, tuple[type[Section], Mapping[str, Source], frozenset[str]]]] = {
    "aws": (Aws, AWS, frozenset({"bedrock"})),
    "azure": (Azure, AZURE, frozenset({"azure", "azure_ai"})),
    "vertex": (Vertex, VERTEX, frozenset({"vertex_ai"})),
}
"""Field of a deployment → its section, where its values come from, and the providers that are of this cloud."""

PARAMETERS: Final = frozenset(source.parameter for _, sources, _ in CLOUDS.values() for source in sources.values())
"""Of every cloud. Those of another one than the deployment's are listed as not acted on."""


OWN_HOSTS: Final[Mapping[str, tuple[str, ...]]] = {
    "azure": (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
    "vertex": (".googleapis.com",),
}
"""Ends of the hosts that a cloud alone can answer at, whoever's resource it is there."""

AUTHORITIES: Final = frozenset(
    {
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.partner.microsoftonline.cn",
        "login.chinacloudapi.cn",
    }
)
"""Entra's own token services: learn.microsoft.com/entra/identity-platform/authentication-national-cloud."""


def is_own(cloud: str | None, address: str) -> bool:
    """Whether an address is a cloud's own, so that the environment's credentials may go there."""
    try:
        parts = urlsplit(address.strip())
        host = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme == "https" and host.endswith(OWN_HOSTS.get(cloud or "", ()))


def is_authority(address: str) -> bool:
    """Whether an address, or a bare host, is a token service of Entra's own."""
    try:
        return urlsplit(address if "://" in address else f"https://{address}").hostname in AUTHORITIES
    except ValueError:
        return False


def parameters(cloud: str | None) -> frozenset[str]:
    """Return the parameters of one cloud; none where it is None."""
    return frozenset() if cloud is None else frozenset(source.parameter for source in CLOUDS[cloud][1].values())


def of(provider: str) -> str | None:
    """Return the cloud of a provider: a key of `CLOUDS`; None for every other."""
    return next((name for name, (_, _, providers) in CLOUDS.items() if provider in providers), None)
