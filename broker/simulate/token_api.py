"""Tokens for trying out: Entra's client credentials and Google's JWT bearer. The form is checked, no secret is.

Sources: learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow and
developers.google.com/identity/protocols/oauth2/service-account.
"""

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NoReturn
from urllib.parse import parse_qs

import orjson

from broker.simulate.answers import Answer, Wanted
from broker.simulate.api import Failure, Job, Refused, Sent, route
from broker.simulate.openai_words import OPENAI

LIFETIME_S: Final = 3599
LONGEST_S: Final = 3600
FORM: Final = "application/x-www-form-urlencoded"
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def _fail(refused: Refused) -> Failure:
    told = {"error": refused.code or "invalid_request", "error_description": refused.message}
    return Failure(refused.status, told, {"cache-control": "no-store"})


TOKENS: Final = replace(OPENAI, name="tokens", fail=_fail, limits=lambda _: {}, identify=lambda _: {}, words={})


def _refuse(code: str, message: str, status: int = 400) -> NoReturn:
    raise Refused(message, status=status, code=code)


def anyone(sent: Sent) -> None:
    """Let everyone in: who asks for a token has none."""
    del sent


def _fields(sent: Sent) -> dict[str, str]:
    if not sent.headers.get("content-type", "").startswith(FORM):
        _refuse("invalid_request", f"the body must be {FORM}")
    return {name: values[-1] for name, values in parse_qs(sent.raw.decode("utf-8", "replace")).items()}


def _token(prefix: str, more: Mapping[str, Any]) -> Job:
    def whole(answer: Answer) -> dict[str, Any]:
        return {
            "access_token": f"{prefix}{answer.plan.identity}",
            "token_type": "Bearer",
            "expires_in": LIFETIME_S,
            **more,
        }

    return Job(Wanted("token", "", generates=False, billed=False), whole)


def entra(sent: Sent) -> Job:
    """Check a request for a token of Entra."""
    fields = _fields(sent)
    kind = fields.get("grant_type")
    if kind is None:
        _refuse("invalid_request", "AADSTS900144: The request body must contain the following parameter: 'grant_type'.")
    if kind != "client_credentials":
        _refuse("unsupported_grant_type", f"AADSTS70003: The app requested an unsupported grant type '{kind}'.")
    for name in ("client_id", "scope"):
        if not fields.get(name):
            _refuse(
                "invalid_request", f"AADSTS900144: The request body must contain the following parameter: '{name}'."
            )
    if not fields.get("client_secret") and fields.get("client_assertion_type") != ASSERTION:
        _refuse("invalid_client", "AADSTS7000216: 'client_assertion', 'client_secret' or 'request' is required for the "
                "'client_credentials' grant type.", 401)  # fmt: skip
    if not fields["scope"].endswith("/.default"):
        _refuse("invalid_scope", f"AADSTS1002012: The provided value for scope {fields['scope']} is not valid. Client "
                "credential flows must have a scope value with /.default suffixed to the resource "
                "identifier.")  # fmt: skip
    return _token("entra-", {"ext_expires_in": LIFETIME_S})


def google(sent: Sent) -> Job:
    """Check a request for a token of Google: a signed assertion, or a refresh token."""
    fields = _fields(sent)
    kind = fields.get("grant_type")
    if kind == "refresh_token":
        for name in ("client_id", "client_secret", "refresh_token"):
            if not fields.get(name):
                _refuse("invalid_request", f"Missing required parameter: {name}")
        return _token("ya29.", {"scope": "https://www.googleapis.com/auth/cloud-platform"})
    if kind != JWT_BEARER:
        _refuse("unsupported_grant_type", f"Invalid grant_type: {kind}")
    _assertion(fields.get("assertion", ""))
    return _token("ya29.", {})


def _assertion(told: str) -> None:
    parts = told.split(".")
    if len(parts) != 3 or not all(parts):  # noqa: PLR2004 - header, claims, signature
        _refuse("invalid_grant", "Bad Request: the assertion is not a signed JWT.")
    try:
        head, claims = (orjson.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
    except (binascii.Error, ValueError):
        _refuse("invalid_grant", "Invalid JWT: Failed to decode.")
    if not isinstance(head, dict) or head.get("alg") != "RS256":
        _refuse("invalid_grant", "Invalid JWT: the algorithm must be RS256.")
    missing = [name for name in ("iss", "aud", "iat", "exp") if not claims.get(name)]
    if missing or not (claims.get("scope") or claims.get("target_audience")):
        _refuse("invalid_grant", f"Invalid JWT: claims are missing: {', '.join(missing) or 'scope'}.")
    if not 0 < claims["exp"] - claims["iat"] <= LONGEST_S:
        _refuse("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "
                "timeframe. Check your iat and exp values in the JWT claim.")  # fmt: skip


ROUTES: Final = (
    route(TOKENS, "/oauth2/v2.0/token", anyone, entra),
    route(TOKENS, "/{tenant}/oauth2/v2.0/token", anyone, entra),
    route(TOKENS, "/token", anyone, google),
)
