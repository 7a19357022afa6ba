"""Settings of the log as keyword arguments of aiokafka's clients. May import the configuration models and aiokafka."""

import ssl
from typing import Any, Final

from broker.config.models import Kafka
from broker.errors import ConfigError

SECRET: Final = frozenset({"sasl_plain_password", "sasl_plain_username"})

CONNECT_LIMIT_S: Final = 12.0
"""How long connecting may take. Something that accepts connections and never answers is told before people give up."""
METADATA_MAX_AGE_MS: Final = 30_000
"""How soon a topic or partition that was made later is noticed; aiokafka's own default is five minutes."""


class Options(dict[str, Any]):
    """Keyword arguments of a client; its `repr` shows no credential."""

    def __repr__(self) -> str:
        """Show the arguments with credentials masked."""
        return repr({name: "***" if name in SECRET and value else value for name, value in self.items()})


def connection_options(kafka: Kafka, client_id: str = "broker") -> Options:
    """Return what every aiokafka client takes: addresses, security, timeouts (milliseconds).

    Raises:
        ConfigError: no servers are configured, or a certificate file cannot be used.
    """
    if not kafka.bootstrap_servers:
        raise ConfigError("no Kafka: start `broker up` in this folder, or name kafka.bootstrap_servers")
    protocol = kafka.security_protocol.upper()
    options = Options(
        bootstrap_servers=[server.strip() for server in kafka.bootstrap_servers.split(",") if server.strip()],
        client_id=client_id,
        security_protocol=protocol,
        request_timeout_ms=round(kafka.request_timeout * 1000),
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
    )
    if protocol.endswith("SSL"):
        options["ssl_context"] = ssl_context(kafka)
    if protocol.startswith("SASL"):
        options.update(_sasl(kafka))
    elif protocol not in {"PLAINTEXT", "SSL"}:
        raise ConfigError(f"kafka.security_protocol: {protocol!r} is none of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL")
    return options


def connect_limit(kafka: Kafka) -> float:
    """Return how many seconds connecting may take: the request time-out, but not beyond `CONNECT_LIMIT_S`."""
    return min(kafka.request_timeout, CONNECT_LIMIT_S)


def _sasl(kafka: Kafka) -> dict[str, Any]:
    mechanism = (kafka.sasl_mechanism or "PLAIN").upper()
    if mechanism not in {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}:
        raise ConfigError(f"kafka.sasl_mechanism: {mechanism!r} is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512")
    if kafka.sasl_username is None or kafka.sasl_password is None:
        raise ConfigError(f"kafka.sasl_username and kafka.sasl_password are needed for {mechanism}")
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": kafka.sasl_password.get_secret_value(),
    }


def ssl_context(kafka: Kafka) -> ssl.SSLContext:
    """Return the TLS context that the certificate settings amount to.

    Raises:
        ConfigError: a file is absent or is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=kafka.ssl_cafile)
    except OSError as exc:
        raise ConfigError(f"kafka.ssl_cafile: {kafka.ssl_cafile}: {exc}") from exc
    context.check_hostname = kafka.ssl_check_hostname
    if kafka.ssl_certfile:
        secret = kafka.ssl_keyfile_password
        # Never None: OpenSSL would ask the terminal for the password of an encrypted key.
        password = secret.get_secret_value() if secret else ""
        try:
            context.load_cert_chain(kafka.ssl_certfile, kafka.ssl_keyfile, password)
        except OSError as exc:
            raise ConfigError(f"kafka.ssl_certfile, kafka.ssl_keyfile: {kafka.ssl_certfile}: {exc}") from exc
    elif kafka.ssl_keyfile:
        raise ConfigError("kafka.ssl_keyfile is set without kafka.ssl_certfile")
    return context
