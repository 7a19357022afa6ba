"""The configuration as frozen models, after every reference and LiteLLM name has been resolved. Imports no I/O."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from broker.config.clouds import Aws, Azure, Section, Vertex
from broker.config.media import Media
from broker.config.price_names import is_price

SearchContext = Literal["search_context_size_low", "search_context_size_medium", "search_context_size_high"]


class Strategy(StrEnum):
    """How a deployment is chosen inside an alias; the names are LiteLLM's."""

    SIMPLE_SHUFFLE = "simple-shuffle"
    LEAST_BUSY = "least-busy"
    USAGE_BASED = "usage-based-routing"
    LATENCY_BASED = "latency-based-routing"
    COST_BASED = "cost-based-routing"


class OnUnknown(StrEnum):
    """What follows a crash during a call, when nobody can tell whether the provider answered (delivery.md)."""

    RETRY = "retry"
    """Call again: the caller gets an answer, the provider may charge twice."""
    FAIL = "fail"
    """Never call again: the caller gets 502 `outcome_unknown`."""


class Prices(BaseModel):
    """Prices of one deployment in USD, overriding every other source; None where not overridden.

    Beside the fields any other of LiteLLM's names that `price_names` reads: by tier, by size, by audio, image, second.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Annotated[Decimal, Field(ge=0)]] = Field(init=False)

    input_cost_per_token: Decimal | None = Field(default=None, ge=0)
    output_cost_per_token: Decimal | None = Field(default=None, ge=0)
    cache_read_input_token_cost: Decimal | None = Field(default=None, ge=0)
    cache_creation_input_token_cost: Decimal | None = Field(default=None, ge=0)
    input_cost_per_request: Decimal | None = Field(default=None, ge=0)
    search_context_cost_per_query: dict[SearchContext, Annotated[Decimal, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        unknown = sorted(name for name in self.__pydantic_extra__ if not is_price(name))
        if unknown:
            raise ValueError(f"{unknown[0]} is no price that is acted on")
        return self


class Capabilities(Section):
    """What a model takes and does, in LiteLLM's names. None: not known, which is no reason to refuse anything."""

    mode: str | None = None
    """What it is made for: `chat`, `responses`, `embedding`, `rerank`, or a word that says nothing here."""
    max_input_tokens: int | None = Field(default=None, ge=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    supports_function_calling: bool | None = None
    supports_parallel_function_calling: bool | None = None
    supports_vision: bool | None = None
    supports_pdf_input: bool | None = None
    supports_audio_input: bool | None = None
    supports_audio_output: bool | None = None
    supports_video_input: bool | None = None
    supports_response_schema: bool | None = None
    supports_reasoning: bool | None = None
    supports_web_search: bool | None = None


class ProviderRow(Section):
    """A provider of the configuration's own (`providers`): an OpenAI-compatible one needs no more than an address."""

    base_url: str
    dialect: Literal["openai", "anthropic", "gemini", "cohere", "jina", "voyage"] = "openai"
    auth: Literal["bearer", "x-api-key", "api-key", "x-goog-api-key"] = "bearer"
    """How the key is sent."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Of every call."""
    renames: dict[str, str] = Field(default_factory=dict)
    """OpenAI's name of a parameter → its own."""
    lacks: tuple[str, ...] = ()
    """Parameters it refuses: 400 by name, or left out with `drop_params`."""
    asks_usage: bool = True
    """Whether a stream tells its usage only when asked by `stream_options`."""
    limit_headers: dict[str, str] = Field(default_factory=dict)
    """Its limit headers → OpenAI's names of them (`x-ratelimit-remaining-tokens`, …)."""
    prices_as: str = ""
    """Whose published prices hold: a provider's name in the package of prices."""


class Deployment(Section):
    """One way to serve an alias. Times are seconds; limits are per 60 s; None means no limit."""

    name: str
    """Unique; `alias/0`, `alias/1`, … unless the configuration names it (`model_info.id`)."""
    alias: str
    provider: str
    model: str
    """The provider's own name of the model: what goes upstream."""
    base_model: str | None = None
    """What to price it as, where `model` is a name of the user's own; its capabilities are that model's too."""
    region: str | None = None
    """Where it is served, as the provider names regions; None: as its address and its model's name imply."""
    model_info: Capabilities | None = None
    """What the configuration says the model can do; it goes before what is known of the model."""
    api_base: str | None = None
    api_key: SecretStr | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    itpm: int | None = Field(default=None, ge=1)
    """Input tokens only, as Anthropic counts them; `otpm` output tokens only."""
    otpm: int | None = Field(default=None, ge=1)
    rpd: int | None = Field(default=None, ge=1)
    """Requests per 24 h, wherever they begin; `tpd` tokens."""
    tpd: int | None = Field(default=None, ge=1)
    max_parallel_requests: int | None = Field(default=None, ge=1)
    timeout: float | None = Field(default=None, gt=0)
    stream_timeout: float | None = Field(default=None, gt=0)
    weight: float | None = Field(default=None, ge=0)
    order: int = 1
    tags: tuple[str, ...] = ()
    prices: Prices = Prices()
    drop_params: bool = False
    additional_drop_params: tuple[str, ...] = ()
    allowed_openai_params: tuple[str, ...] = ()
    """Parameters that are sent although the table says that the provider refuses them."""
    row: ProviderRow | None = None
    """What the configuration itself says of the provider; None where the table has its row."""
    extra_body: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Parameters the configuration adds to every request of this deployment (temperature, seed, …)."""
    aws: Aws | None = None
    azure: Azure | None = None
    vertex: Vertex | None = None
    """Of the three only the one whose provider it is."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every credential in it as text: what no message, log or record may quote."""
        clouds = [value for part in (self.aws, self.azure, self.vertex) if part is not None for _, value in part]
        found = (self.api_key, *self.headers.values(), *clouds)
        return tuple(
            text for each in found if isinstance(each, SecretStr) and (text := each.get_secret_value().strip())
        )


class Alias(Section):
    """What callers name, and the policy of its requests. Times are seconds."""

    name: str
    deployments: tuple[Deployment, ...]
    strategy: Strategy = Strategy.SIMPLE_SHUFFLE
    num_retries: int = Field(default=2, ge=0)
    """Tries after the first one, inside this alias."""
    timeout: float = Field(default=600.0, gt=0)
    """Of one attempt, connection to last byte."""
    deadline: float = Field(default=86_400.0, gt=0)
    """Of a request that names none, counted from when it was produced."""
    cooldown_time: float = Field(default=5.0, ge=0)
    allowed_fails: int | None = Field(default=None, ge=0)
    fallbacks: tuple[str, ...] = ()
    context_window_fallbacks: tuple[str, ...] = ()
    content_policy_fallbacks: tuple[str, ...] = ()
    enable_pre_call_checks: bool = False
    """Do not call a deployment that surely cannot serve the request."""
    on_unknown: OnUnknown = OnUnknown.RETRY
    fail_open: bool = False
    """Serve on while Redis is away: at least once, limits of deployments within each process, none of callers.

    By default work waits instead.
    """


class Tenant(Section):
    """What a tenant may use over all its keys, and its share where tenants compete. Budgets are USD."""

    name: str
    weight: float = Field(default=1.0, gt=0, le=1000)
    """Share of the tokens that a busy deployment serves: 3 gets three times as much as 1 (limits.md)."""
    rpm_limit: int | None = Field(default=None, ge=1)
    tpm_limit: int | None = Field(default=None, ge=1)
    max_parallel_requests: int | None = Field(default=None, ge=1)
    max_budget: Decimal | None = Field(default=None, ge=0)


class VirtualKey(Section):
    """A key of a tenant, known only by its hash. Budgets are USD."""

    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the key, hex."""
    key_id: str
    tenant: str
    team: str = ""
    aliases: tuple[str, ...] = ()
    """Aliases it may use; empty means all."""
    blocked: bool = False
    expires_ms: int | None = None
    """Unix milliseconds."""
    rpm_limit: int | None = Field(default=None, ge=1)
    tpm_limit: int | None = Field(default=None, ge=1)
    max_parallel_requests: int | None = Field(default=None, ge=1)
    max_budget: Decimal | None = Field(default=None, ge=0)


class Kafka(Section):
    """The log. With no `bootstrap_servers`, `broker up` starts an embedded one. Times are seconds."""

    bootstrap_servers: str | None = None
    topic_prefix: str = Field(default="llm.", pattern=r"^[A-Za-z0-9._-]{0,40}$")
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_keyfile_password: SecretStr | None = None
    ssl_check_hostname: bool = True
    replication_factor: int = Field(default=1, ge=1)
    max_message_bytes: int = Field(default=4 << 20, ge=1 << 20)
    request_timeout: float = Field(default=40.0, gt=0)


class Redis(Section):
    """Leases, answers and shared limits. With no `url`, `broker up` starts an embedded one. Times are seconds."""

    url: SecretStr | None = None
    """`redis://` or `rediss://`, credentials included."""
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    answer_ttl: float = Field(default=3600.0, gt=0, allow_inf_nan=False)
    """Seconds an answer stays readable by request id."""
    marker_ttl: float = Field(default=86_400.0, gt=0, allow_inf_nan=False)
    """Seconds for which a request that was answered is known as such, so that the same id makes no second call."""
    lease_seconds: float = Field(default=30.0, ge=1, allow_inf_nan=False)
    """How long a request of a worker that died waits for another; live workers renew three times as often."""


class ClickHouse(Section):
    """The ledger's tables. With no `dsn`, `broker up` starts an embedded engine."""

    dsn: SecretStr | None = None
    """`clickhouse://user:password@host:8123/database` or `clickhouses://…`."""
    ca_cert: str | None = None
    client_cert: str | None = None
    client_cert_key: str | None = None
    ttl_days: int = Field(default=400, ge=1)
    batch_rows: int = Field(default=10_000, ge=1)
    batch_seconds: float = Field(default=1.0, gt=0)


class Pool(Section):
    """Worker processes that share a consumer group."""

    name: str
    aliases: tuple[str, ...] = ("*",)
    processes: int = Field(default=1, ge=1)
    in_flight: int = Field(default=2000, ge=1)
    """Upstream calls at once in one process."""
    drain_seconds: float = Field(default=130.0, ge=0)
    commit_interval: float = Field(default=0.3, gt=0)
    batch_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the permits that the batch lane gets even while interactive requests wait (limits.md)."""


class Server(Section):
    """Where health, metrics and later the HTTP endpoint listen."""

    host: str = "127.0.0.1"
    port_base: int = Field(default=4000, ge=1, le=65_000)


class Settings(Section):
    """The whole configuration."""

    aliases: dict[str, Alias] = Field(default_factory=dict)
    alias_names: dict[str, str] = Field(default_factory=dict)
    """What an OpenAI client may call an alias that Kafka forbids (`openai/gpt-4o`) → the alias."""
    default_fallbacks: tuple[str, ...] = ()
    keys: dict[str, VirtualKey] = Field(default_factory=dict)
    """By hash."""
    tenants: dict[str, Tenant] = Field(default_factory=dict)
    """Those that the configuration says something of; any other has weight 1 and no limits."""
    anonymous_tenant: str | None = "anonymous"
    """Tenant of requests without a key; None refuses them."""
    signing_key: SecretStr | None = None
    """Of `broker-signature`; one is drawn at start when absent, which suits one process only."""
    kafka: Kafka = Kafka()
    redis: Redis = Redis()
    clickhouse: ClickHouse = ClickHouse()
    pools: dict[str, Pool] = Field(default_factory=lambda: {"default": Pool(name="default")})
    server: Server = Server()
    media: Media = Media()
    price_overrides: tuple[dict[str, Any], ...] = ()
    providers: dict[str, ProviderRow] = Field(default_factory=dict)
    """The configuration's own rows by name; each deployment carries its own."""
    unacted: tuple[str, ...] = ()
    """LiteLLM keys that were understood but are not acted on yet; listed at start."""
    config_hash: str = ""
    """First 12 hex digits of the SHA-256 of the configuration, secrets left out."""
