"""Signs calls to AWS: Signature Version 4 over the very request that goes out. Imports botocore's signer, no session.

docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv4.html. Keys of profiles, roles and instances are not looked up.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from broker.clock import Clock
from broker.config import Deployment
from broker.errors import ConfigError
from workers.providers.aws import region
from workers.providers.base import Outbound
from workers.providers.catalog import ResolvedDeployment

SERVICE: Final = "bedrock"
"""The name in the scope of a signature; the host's own is `bedrock-runtime`."""
OFF_LOOP_BYTES: Final = 256 << 10
"""Bodies larger than this are hashed in a thread: above 0.2 ms of the loop's time."""
_UNSIGNED: Final = frozenset({"authorization", "x-amzn-trace-id", "x-amz-date", "x-amz-security-token"})


class _Signer(SigV4Auth):  # type: ignore[misc,unused-ignore]
    """botocore's signer with the time told."""

    def sign(self, request: AWSRequest, now: datetime) -> dict[str, str]:
        """Return the headers that authorise a request, names in lower case."""
        request.context["timestamp"] = now.strftime(SIGV4_TIMESTAMP)
        request.headers["x-amz-date"] = request.context["timestamp"]
        added = {"x-amz-date": request.context["timestamp"]}
        if self.credentials.token:
            request.headers["x-amz-security-token"] = added["x-amz-security-token"] = self.credentials.token
        text = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(request, self.signature(text, request))
        return {"authorization": request.headers["Authorization"], **added}


class AwsCredential:
    """`Credential` by an access key.

    Signed are host, content type and every `x-amz-` header: what no engine changes.
    """

    def __init__(self, target: ResolvedDeployment, clock: Clock) -> None:
        """Raises `ConfigError` naming the deployment and the parameter that is missing."""
        access, secret, token = _keys(target.deployment)
        where = region(target.deployment)
        if not where:
            raise ConfigError(f"deployment {target.deployment.name}: bedrock needs `aws_region_name`")
        self._clock = clock
        self._signer = _Signer(ReadOnlyCredentials(access, secret, token), SERVICE, where)
        self._base = target.headers

    async def headers(self, out: Outbound) -> tuple[tuple[str, str], ...]:
        """Return the signature's headers, as the protocol says; it asks nobody."""
        if len(out.body) > OFF_LOOP_BYTES:
            return await asyncio.to_thread(self._sign, out)
        return self._sign(out)

    def refused(self) -> None:
        """Do nothing: a signature is made anew for every call."""

    def _sign(self, out: Outbound) -> tuple[tuple[str, str], ...]:
        sent = {**dict(self._base), **dict(out.headers)}
        signed = {
            name: value
            for name, value in sent.items()
            if name == "content-type" or (name.startswith("x-amz") and name not in _UNSIGNED)
        }
        request = AWSRequest(method="POST", url=out.url, data=out.body, headers=signed)
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        return tuple(self._signer.sign(request, now).items())


def _keys(deployment: Deployment) -> tuple[str, str, str | None]:
    aws = deployment.aws
    if aws is None or aws.access_key_id is None or aws.secret_access_key is None:
        raise ConfigError(
            f"deployment {deployment.name}: bedrock needs `aws_access_key_id` and `aws_secret_access_key`"
        )
    token = aws.session_token.get_secret_value().strip() if aws.session_token else ""
    access, secret = aws.access_key_id.get_secret_value().strip(), aws.secret_access_key.get_secret_value().strip()
    return access, secret, token or None
