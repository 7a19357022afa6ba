"""Checks the SigV4 signature of a call to Bedrock by computing it again. Imports botocore, for that alone.

Sources: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html and
…/reference_sigv-troubleshooting.html for what is said of a wrong one.
"""

import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from broker.simulate.api import Refused, Sent, bearer

ACCESS_KEY: Final = "AKIASIMULATOR0000000"
SECRET_KEY: Final = "simulated/secret/key/that/opens/nothing0"  # noqa: S105 - made up, and told on the command line
SKEW: Final = timedelta(minutes=5)
SCHEME: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
STAMP: Final = "%Y%m%dT%H%M%SZ"
WRONG: Final = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


def _refuse(kind: str, message: str) -> Refused:
    return Refused(message, "permission", kind=kind)


def authorize(sent: Sent) -> None:
    """Refuse a call that has neither a bearer token nor a good signature."""
    if bearer(sent) is not None:
        return
    told = sent.headers.get("authorization")
    if not told:
        raise _refuse("MissingAuthenticationTokenException", "Missing Authentication Token")
    found = SCHEME.fullmatch(told)
    if found is None:
        raise _refuse("IncompleteSignatureException", "Authorization header requires 'Credential', 'SignedHeaders' and "
                      "'Signature' parameters.")  # fmt: skip
    if found["key"] != ACCESS_KEY:
        raise _refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
    if found["service"] != "bedrock":
        raise _refuse("InvalidSignatureException", f"Credential should be scoped to correct service: 'bedrock', not "
                      f"'{found['service']}'.")  # fmt: skip
    stamp = sent.headers.get("x-amz-date", "")
    _is_fresh(stamp, found["day"])
    if not hmac.compare_digest(
        signature(sent, found["headers"].split(";"), found["region"], stamp), found["signature"]
    ):
        raise _refuse("InvalidSignatureException", WRONG)


def _is_fresh(stamp: str, day: str) -> None:
    try:
        moment = datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)
    except ValueError:
        raise _refuse(
            "IncompleteSignatureException", f"Date must be in ISO-8601 'basic format'. Got '{stamp}'."
        ) from None
    if not stamp.startswith(day):
        raise _refuse("InvalidSignatureException", "Date in Credential scope does not match the date of the request.")
    if abs(datetime.now(UTC) - moment) > SKEW:
        raise _refuse("InvalidSignatureException", f"Signature expired: {stamp} is not within five minutes of now.")


def signature(sent: Sent, signed: list[str], region: str, stamp: str) -> str:
    """Return the signature a call with these headers should have."""
    if "host" not in signed or "x-amz-date" not in signed:
        raise _refuse("InvalidSignatureException", "'Host' and 'X-Amz-Date' must be signed headers.")
    headers: Mapping[str, str] = {name: sent.headers[name] for name in signed if name in sent.headers}
    if set(headers) != set(signed):
        raise _refuse("InvalidSignatureException", WRONG)
    request = AWSRequest(sent.method, f"https://{sent.headers.get('host', '')}{sent.target}", dict(headers), sent.raw)
    request.context["timestamp"] = stamp
    request.context["payload_signing_enabled"] = True
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "bedrock", region)
    canonical = signer.canonical_request(request)
    return str(signer.signature(signer.string_to_sign(request, canonical), request))
