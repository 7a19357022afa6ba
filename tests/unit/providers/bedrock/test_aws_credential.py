"""Calls to Bedrock over both engines: a server that recomputes the signature takes them; keys, regions, addresses."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from broker.cli.config import command
from broker.clock import ManualClock
from broker.config import Aws, Deployment, load
from broker.errors import BadUpstreamResponse, ConfigError, UpstreamError, UpstreamUnreachable
from tests.golden.cases import stream_of
from tests.unit.providers.bedrock.test_bedrock_answers import answer
from tests.upstream import ReceivedCall, Step, Upstream
from tests.upstream_steps import Wire, head
from workers.providers.aws import region, spelled
from workers.providers.base import Call
from workers.providers.catalog import resolve
from workers.providers.client import HttpProviderClient
from workers.providers.credential_aws import OFF_LOOP_BYTES, AwsCredential
from workers.providers.transport import Engine, make_transport

CHAT = "/v1/chat/completions"
ACCESS, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab12cd34ef56"
EPOCH = 1_440_938_160_000
"""2015-08-30 12:36:00 UTC in milliseconds: the moment of AWS's published examples."""


def signature(call: ReceivedCall, signed: str, scope: str) -> str:
    """Signature Version 4 as its documentation says, written down a second time: the path is encoded once more."""
    day, where, service, last = scope.split("/")
    lines = [f"{name}:{' '.join(call.headers[name].split())}\n" for name in signed.split(";")]
    path, body = quote(call.path, safe="/~"), hashlib.sha256(call.body).hexdigest()
    canonical = "\n".join([call.method, path, "", "".join(lines), signed, body])
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    whole = "\n".join(["AWS4-HMAC-SHA256", call.headers["x-amz-date"], scope, hashed])
    key = f"AWS4{SECRET}".encode()
    for part in (day, where, service, last):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return hmac.new(key, whole.encode(), "sha256").hexdigest()


def test_the_recomputation_gives_the_signature_that_aws_published() -> None:
    headers = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
    call = ReceivedCall("GET", "/", headers, b"", 0.0)
    found = signature(call, "host;x-amz-date", "20150830/us-east-1/service/aws4_request")
    assert found == "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"


@dataclass(frozen=True)
class Verified(Step):
    """Answers as Bedrock does where the signature of what arrived fits, else 403."""

    region: str = "us-east-1"
    needs: tuple[str, ...] = ("content-type", "host", "x-amz-date")
    seen: list[str] = field(default_factory=list)

    def wire(self, call: ReceivedCall) -> Wire:
        kind, _, rest = call.headers["authorization"].partition(" ")
        fields = dict(part.split("=", 1) for part in rest.split(", "))
        access, _, scope = fields["Credential"].partition("/")
        made = signature(call, fields["SignedHeaders"], scope)
        fits = (kind, access, fields["Signature"]) == ("AWS4-HMAC-SHA256", ACCESS, made)
        fits = fits and scope.split("/")[1:] == [self.region, "bedrock", "aws4_request"]
        fits = fits and set(self.needs) <= set(fields["SignedHeaders"].split(";"))
        self.seen.append(fields["SignedHeaders"])
        if not fits:
            body = json.dumps({"message": "The request signature we calculated does not match."}).encode()
            told = {"x-amzn-errortype": "InvalidSignatureException"}
            return Wire([head(403, "application/json", len(body), told) + body])
        if call.path.endswith("/converse-stream"):
            body, kind = stream_of("bedrock", "text.hex"), "application/vnd.amazon.eventstream"
        else:
            body, kind = json.dumps(answer({"text": "Hello"})).encode(), "application/json"
        return Wire([head(200, kind, len(body)) + body])


@pytest.fixture(params=["pyreqwest", "httpx"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[HttpProviderClient]:
    engine: Engine = request.param
    found = HttpProviderClient(make_transport(8, prefer=engine), clock=ManualClock(EPOCH))
    yield found
    await found.close()


def aws(**fields: Any) -> Aws:
    values = {"region": "us-east-1", "access_key_id": ACCESS, "secret_access_key": SECRET, **fields}
    return Aws(**values)


def deployment(model: str = CLAUDE, **fields: Any) -> Deployment:
    return Deployment(**{"name": "a/0", "alias": "a", "provider": "bedrock", "model": model, "aws": aws(), **fields})


def a_call(up: Upstream, model: str = CLAUDE, *, text: str = "hi", **fields: Any) -> Call:
    base = up.url.removesuffix("/v1")
    body = {"model": "a", "messages": [{"role": "user", "content": text}]}
    return Call(deployment(model, api_base=base, **fields), CHAT, body, 10.0, "request-1", "00-ab-cd-01")


@pytest.mark.parametrize("model", [CLAUDE, ARN, "us.anthropic.claude-opus-4-6-v1"])
async def test_a_server_that_recomputes_the_signature_takes_the_call(client: HttpProviderClient, model: str) -> None:
    step = Verified()
    async with Upstream(default=step) as up:
        result = await client.call(a_call(up, model))
        assert json.loads(result.body)["choices"][0]["message"]["content"] == "Hello"
        assert up.calls[0].path == f"/model/{quote(model, safe='-._~')}/converse"
        assert up.calls[0].headers["x-amz-date"] == "20150830T123600Z"
        assert step.seen == ["content-type;host;x-amz-date"]


async def test_a_stream_is_signed_and_its_bytes_become_chunks(client: HttpProviderClient) -> None:
    chunks: list[dict[str, Any]] = []

    async def take(chunk: bytes) -> None:
        chunks.append(json.loads(chunk))

    async with Upstream(default=Verified()) as up:
        result = await client.call(a_call(up), take)
        assert up.calls[0].headers["accept"] == "application/vnd.amazon.eventstream"
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "Hel", "lo", None]
    assert (result.usage.input_tokens, result.usage.output_tokens) == (10, 5)


async def test_the_token_of_a_session_and_headers_for_aws_are_signed(client: HttpProviderClient) -> None:
    needs = ("content-type", "host", "x-amz-date", "x-amz-security-token", "x-amzn-bedrock-trace")
    fields: dict[str, Any] = {
        "aws": aws(session_token="tok en+/="),
        "headers": {"X-Amzn-Bedrock-Trace": "ENABLED", "X-Own": "1"},
    }
    async with Upstream(default=Verified(needs=needs)) as up:
        await client.call(a_call(up, **fields))
        assert up.calls[0].headers["x-amz-security-token"] == "tok en+/="


async def test_a_body_that_is_hashed_in_a_thread_is_signed_alike(client: HttpProviderClient) -> None:
    async with Upstream(default=Verified()) as up:
        await client.call(a_call(up, text="ä" * OFF_LOOP_BYTES))
        assert len(up.calls[0].body) > OFF_LOOP_BYTES


async def test_a_wrong_secret_is_refused_as_aws_refuses_it_and_never_quoted(client: HttpProviderClient) -> None:
    async with Upstream(default=Verified()) as up:
        with pytest.raises(UpstreamError, match="does not match") as caught:
            await client.call(a_call(up, aws=aws(secret_access_key="another-secret-key")))
        assert (caught.value.status, caught.value.kind) == (403, "InvalidSignatureException")
        assert b"another-secret-key" not in up.calls[0].body + repr(up.calls[0].headers).encode()


async def test_a_key_of_bedrock_itself_is_a_bearer_and_nothing_is_signed(client: HttpProviderClient) -> None:
    async with Upstream() as up:
        call = a_call(up, aws=None, api_key="ABSK-key")
        with pytest.raises(BadUpstreamResponse):  # the scripted server answers in OpenAI's shape
            await client.call(call)
        assert up.calls[0].headers["authorization"] == "Bearer ABSK-key"
        assert "x-amz-date" not in up.calls[0].headers


async def test_what_is_missing_ends_the_call_before_it_is_made(client: HttpProviderClient) -> None:
    call = Call(deployment(aws=aws(secret_access_key=None)), CHAT, {"messages": []}, 10.0, "r")
    with pytest.raises(UpstreamUnreachable, match=r"deployment a/0: bedrock needs `aws_secret_access_key`"):
        await client.call(call)


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"aws": None}, "aws_access_key_id"),
        ({"aws": aws(access_key_id=None)}, "aws_access_key_id"),
        ({"aws": aws(secret_access_key=" ")}, "aws_secret_access_key"),
        ({"aws": aws(region=None)}, "aws_region_name"),
        ({"aws": aws(region=None), "api_base": "https://proxy.example.com"}, "aws_region_name"),
        ({"aws": None, "api_key": "ABSK-key"}, "aws_region_name"),
    ],
)
def test_what_is_missing_is_named_with_the_deployment(fields: dict[str, Any], missing: str) -> None:
    with pytest.raises(ConfigError, match=f"deployment a/0: .*`{missing}`") as caught:
        resolve(deployment(**fields))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "where", "base"),
    [
        ({}, "us-east-1", "https://bedrock-runtime.us-east-1.amazonaws.com"),
        ({"aws": aws(region="cn-north-1")}, "cn-north-1", "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ({"aws": aws(region="eusc-de-east-1")}, "eusc-de-east-1", "https://bedrock-runtime.eusc-de-east-1.amazonaws.eu"),
        ({"aws": aws(endpoint="https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com/")}, "us-east-1",
         "https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com"),
        ({"aws": aws(region=None, endpoint="https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com")}, "eu-west-1",
         "https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com"),
        ({"aws": aws(region=None), "api_base": "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com"},
         "us-gov-west-1", "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com"),
        ({"aws": None, "api_key": "k", "api_base": "http://127.0.0.1:9"}, "", "http://127.0.0.1:9"),
        ({"model": "converse/ap-southeast-2/au.anthropic.claude-sonnet-4-6"}, "ap-southeast-2",
         "https://bedrock-runtime.ap-southeast-2.amazonaws.com"),
        ({"model": ARN.replace("us-east-1", "eu-north-1")}, "eu-north-1",
         "https://bedrock-runtime.eu-north-1.amazonaws.com"),
        ({"provider": "bedrock_converse"}, "us-east-1", "https://bedrock-runtime.us-east-1.amazonaws.com"),
    ],
)  # fmt: skip
def test_where_a_deployment_is_called_and_in_which_region(fields: dict[str, Any], where: str, base: str) -> None:
    given = deployment(**fields)
    assert (region(given), resolve(given).base_url) == (where, base)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("anthropic.claude-v2", ("anthropic.claude-v2", "", "")),
        ("converse/us.amazon.nova-pro-v1:0", ("us.amazon.nova-pro-v1:0", "", "")),
        ("invoke/us-west-2/anthropic.x", ("anthropic.x", "", "us-west-2")),
        ("us-gov-east-1/6-month-commitment/anthropic.x", ("anthropic.x", "", "us-gov-east-1")),
        ("llama/" + ARN, (ARN, "meta.llama", "us-east-1")),
        ("an/own/name", ("an/own/name", "", "")),
    ],
)
def test_a_model_is_spelled_as_litellm_s_users_do(model: str, found: tuple[str, str, str]) -> None:
    each = spelled(model)
    assert (each.id, each.family, each.region) == found


def test_no_secret_stands_in_what_is_printed_of_a_deployment_or_its_credential() -> None:
    resolved = resolve(deployment(aws=aws(session_token="token-1")))
    credential = AwsCredential(resolved, ManualClock(EPOCH))
    assert not [secret for secret in resolved.secrets if secret in repr(credential) + repr(vars(credential))]
    assert {SECRET, ACCESS, "token-1"} <= set(resolved.secrets)


def test_a_configuration_says_which_deployments_cannot_be_called(tmp_path: Any) -> None:
    path = tmp_path / "broker.yaml"
    path.write_text(
        "model_list:\n"
        "- {model_name: a, litellm_params: {model: bedrock/us-east-1/amazon.nova-lite-v1:0, aws_access_key_id: k,"
        " aws_secret_access_key: s}}\n"
        "- {model_name: b, litellm_params: {model: bedrock_converse/amazon.nova-lite-v1:0, aws_access_key_id: k,"
        " aws_secret_access_key: s}}\n"
    )
    assert load(path, {}).aliases["b"].deployments[0].aws is not None
    result = CliRunner().invoke(command, ["check", str(path), "--json"])
    assert json.loads(result.output)["uncallable"] == ["deployment b/0: bedrock needs `aws_region_name`"]
