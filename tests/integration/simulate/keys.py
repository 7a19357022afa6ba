"""A key that is made for a test and signs for nobody."""

from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt


def private_key() -> str:
    """Return a key as a credential file holds it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


def signer() -> Any:
    """Return what google-auth signs assertions with."""
    return crypt.RSASigner.from_string(private_key(), "k1")  # type: ignore[no-untyped-call] # google-auth has no types
