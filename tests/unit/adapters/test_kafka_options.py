"""What the log's settings become for aiokafka."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from broker.adapters.kafka_options import connection_options
from broker.config.models import Kafka
from broker.errors import ConfigError


def kafka(**settings: object) -> Kafka:
    return Kafka.model_validate({"bootstrap_servers": "a:1, b:2", **settings})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate and its key, encrypted with `secret`."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 1 -subj /CN=localhost -passout pass:secret"
    command = ["openssl", "req", *options.split(), "-keyout", str(key), "-out", str(cert)]
    if shutil.which("openssl") is None:
        pytest.skip("makes a certificate with the openssl command, which is not installed")
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_plain_settings_are_addresses_and_timeouts() -> None:
    options = connection_options(kafka(request_timeout=12.5), "me")
    assert options == {
        "bootstrap_servers": ["a:1", "b:2"],
        "client_id": "me",
        "security_protocol": "PLAINTEXT",
        "request_timeout_ms": 12_500,
        "metadata_max_age_ms": 30_000,
    }


def test_sasl_takes_user_and_password_and_shows_neither() -> None:
    options = connection_options(
        kafka(
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="scram-sha-512",
            sasl_username="alice",
            sasl_password=SecretStr("wonderland"),
        )
    )
    assert (options["sasl_mechanism"], options["sasl_plain_username"]) == ("SCRAM-SHA-512", "alice")
    assert options["sasl_plain_password"] == "wonderland"
    assert "wonderland" not in repr(options)
    assert "wonderland" not in f"{options}"


def test_tls_checks_certificate_and_host_name_unless_told_otherwise(certificate: tuple[Path, Path]) -> None:
    cert, _ = certificate
    context = connection_options(kafka(security_protocol="SSL", ssl_cafile=str(cert)))["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    relaxed = connection_options(kafka(security_protocol="SSL", ssl_check_hostname=False))["ssl_context"]
    assert (relaxed.verify_mode, relaxed.check_hostname) == (ssl.CERT_REQUIRED, False)


def test_a_client_certificate_with_an_encrypted_key_is_loaded(certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    settings = {"security_protocol": "SSL", "ssl_certfile": cert, "ssl_keyfile": key}
    assert connection_options(kafka(**settings, ssl_keyfile_password=SecretStr("secret")))["ssl_context"]
    for password in (None, SecretStr("wrong")):
        with pytest.raises(ConfigError, match=r"kafka\.ssl_certfile"):
            connection_options(kafka(**settings, ssl_keyfile_password=password))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"bootstrap_servers": None}, "kafka.bootstrap_servers"),
        ({"security_protocol": "TLS"}, "kafka.security_protocol"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI"}, "kafka.sasl_mechanism"),
        ({"security_protocol": "SASL_PLAINTEXT", "sasl_username": "alice"}, "kafka.sasl_password"),
        ({"security_protocol": "SSL", "ssl_cafile": "/absent.pem"}, "kafka.ssl_cafile"),
        ({"security_protocol": "SSL", "ssl_certfile": "/absent.pem"}, "kafka.ssl_certfile"),
        ({"security_protocol": "SSL", "ssl_keyfile": "/absent.pem"}, "kafka.ssl_keyfile"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        connection_options(kafka(**settings))
