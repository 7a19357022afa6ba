"""Deployments of Azure and Vertex without a key: their tokens, over both engines, and errors where there is none."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from broker.clock import ManualClock
from broker.config import Deployment
from broker.errors import BadUpstreamResponse, RequestError, UpstreamError, UpstreamUnreachable
from broker.routing.health import Health
from tests.upstream import Drop, Html, Raw, ReceivedCall, Status, Step, Upstream
from workers.providers.base import Call
from workers.providers.client import HttpProviderClient
from workers.providers.tokens import YOUNG_SECONDS
from workers.providers.transport import Engine, make_transport

CHAT = "/v1/chat/completions"
SECRET = "very-secret-client-secret"
FORM = ""
"""The model that a form names, as the scripted upstream knows requests."""
PAIR = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
PRIVATE = PAIR.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
SCHEME = (padding.PKCS1v15(), hashes.SHA256())
"""RS256, RFC 7518 section 3.3."""
COMPLETION = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi!"}, "finish_reason": "stop"}]}
GEMINI = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi!"}]}, "finishReason": "STOP"}]}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["pyreqwest", "httpx"])
async def client(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[HttpProviderClient]:
    engine: Engine = request.param
    client = HttpProviderClient(make_transport(256, prefer=engine), clock=clock)
    yield client
    await client.close()


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    async with Upstream(default=Raw(json.dumps(COMPLETION))) as upstream:
        yield upstream


def origin(up: Upstream) -> str:
    return up.url.removesuffix("/v1")


def granted(text: str, seconds: int = 3600) -> Raw:
    return Raw(json.dumps({"access_token": text, "expires_in": seconds, "token_type": "Bearer"}))


def azure(up: Upstream, **fields: Any) -> Deployment:
    application = {"tenant_id": "tenant-1", "client_id": "app-1", "client_secret": SECRET, "authority": origin(up)}
    values = {"name": "a/0", "alias": "a", "provider": "azure", "model": "chat", "api_base": origin(up)}
    return Deployment(**{**values, "azure": application, **fields})


def vertex(up: Upstream, credentials: str, **fields: Any) -> Deployment:
    said = {"project": "p-1", "location": "europe-west1", "credentials": credentials}
    values = {"name": "a/0", "alias": "a", "provider": "vertex_ai", "model": "gemini-3-pro", "api_base": origin(up)}
    return Deployment(**{**values, "vertex": said, **fields})


def account(up: Upstream, **fields: Any) -> str:
    said = {"type": "service_account", "project_id": "p-1", "client_email": "a@p-1.iam.gserviceaccount.com"}
    more = {"private_key": PRIVATE, "private_key_id": "key-1", "token_uri": f"{origin(up)}/token"}
    return json.dumps({**said, **more, **fields})


def call_of(deployment: Deployment) -> Call:
    return Call(deployment, CHAT, {"messages": [{"role": "user", "content": "hi"}]}, 10.0, "request-1")


def forms(up: Upstream) -> list[ReceivedCall]:
    return [call for call in up.calls if call.path.endswith("/token")]


def served_with(up: Upstream) -> list[str]:
    return [call.headers.get("authorization", "") for call in up.calls if not call.path.endswith("/token")]


def form_of(call: ReceivedCall) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(call.body.decode()).items()}


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


async def refusal(client: HttpProviderClient, call: Call) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await client.call(call)
    assert SECRET not in caught.value.message + str(caught.value.args)
    assert PRIVATE.splitlines()[1] not in caught.value.message
    return caught.value


async def test_an_application_trades_its_secret_for_a_token(client: HttpProviderClient, up: Upstream) -> None:
    up.script(FORM, [granted("token-1")])
    await client.call(call_of(azure(up)))
    (asked,) = forms(up)
    assert asked.path == "/tenant-1/oauth2/v2.0/token"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert form_of(asked) == {
        "grant_type": "client_credentials",
        "client_id": "app-1",
        "client_secret": SECRET,
        "scope": "https://cognitiveservices.azure.com/.default",
    }
    assert up.calls[1].path == "/openai/deployments/chat/chat/completions?api-version=2025-02-01-preview"
    assert (served_with(up), "api-key" in up.calls[1].headers) == (["Bearer token-1"], False)


async def test_a_hundred_calls_fetch_one_token(client: HttpProviderClient, up: Upstream) -> None:
    up.script(FORM, [granted("token-1")])
    call = call_of(azure(up))
    await asyncio.gather(*(client.call(call) for _ in range(100)))
    assert (len(forms(up)), served_with(up)) == (1, ["Bearer token-1"] * 100)


async def test_a_token_that_ends_is_fetched_anew(client: HttpProviderClient, up: Upstream, clock: ManualClock) -> None:
    up.script(FORM, [granted("token-1"), granted("token-2")])
    call = call_of(azure(up))
    await client.call(call)
    clock.advance(3590)
    await client.call(call)
    assert served_with(up) == ["Bearer token-1", "Bearer token-2"]


async def test_a_token_that_the_upstream_refuses_is_dropped(
    client: HttpProviderClient, up: Upstream, clock: ManualClock
) -> None:
    up.script(FORM, [granted("token-1"), granted("token-2")])
    up.script("chat", [Status(401), Status(401), Status(401)])
    call = call_of(azure(up))
    await refusal(client, call)
    assert len(forms(up)) == 1  # it was just fetched: another one would fare no better
    clock.advance(YOUNG_SECONDS)
    await refusal(client, call)
    await refusal(client, call)
    await client.call(call)
    assert served_with(up) == ["Bearer token-1"] * 2 + ["Bearer token-2"] * 2


@pytest.mark.parametrize(
    ("status", "code"), [(401, "invalid_client"), (400, "unauthorized_client"), (403, "access_denied")]
)
async def test_a_refusal_is_the_deployments_fault_and_cools_it_down(
    client: HttpProviderClient, up: Upstream, status: int, code: str
) -> None:
    told = {"error": code, "error_description": f"AADSTS7000215: Invalid client secret provided: {SECRET}."}
    up.script(FORM, [Status(status, body=told)])
    error = await refusal(client, call_of(azure(up)))
    assert isinstance(error, UpstreamError)
    assert (error.status, error.code, error.kind) == (401, code, "authentication_error")
    assert error.message == (
        f"the token service at {origin(up)} answered {status}: {code}: "
        "AADSTS7000215: Invalid client secret provided: ***."
    )
    health = Health(cooldown_time=5.0, allowed_fails=None, alone=False)
    health.end(0.0, error, started=True, probe=False)
    assert health.cooling_until(0.0) == 5.0


@pytest.mark.parametrize(("status", "wait"), [(429, 7.0), (503, 7.0)])
async def test_a_service_that_is_busy_says_so_with_its_own_status(
    client: HttpProviderClient, up: Upstream, status: int, wait: float
) -> None:
    up.script(FORM, [Status(status, retry_after=7)])
    error = await refusal(client, call_of(azure(up)))
    assert (type(error), error.status, error.retry_after) == (UpstreamError, status, wait)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (Drop(), UpstreamUnreachable),
        (Html(), BadUpstreamResponse),
        (Raw("[]"), BadUpstreamResponse),
        (Raw('{"access_token": "a"}'), BadUpstreamResponse),
        (Raw('{"access_token": "a\\nb", "expires_in": 9}'), BadUpstreamResponse),
        (Raw('{"access_token": "", "expires_in": 9}'), BadUpstreamResponse),
        (Raw('{"access_token": "a", "expires_in": true}'), BadUpstreamResponse),
        (Raw('{"access_token": "a", "expires_in": -1}'), BadUpstreamResponse),
        (Status(302), BadUpstreamResponse),
    ],
    ids=str,
)
async def test_what_is_no_token_is_a_typed_error(
    client: HttpProviderClient, up: Upstream, step: Step, kind: type[RequestError]
) -> None:
    up.script(FORM, [step])
    assert type(await refusal(client, call_of(azure(up)))) is kind
    assert served_with(up) == []


async def test_a_service_that_cannot_be_reached_is_a_typed_error(client: HttpProviderClient, up: Upstream) -> None:
    application = {"tenant_id": "t", "client_id": "c", "client_secret": SECRET, "authority": "http://127.0.0.1:9"}
    error = await refusal(client, call_of(azure(up, azure=application)))
    assert type(error) is UpstreamUnreachable
    assert "http://127.0.0.1:9" in error.message


async def test_a_token_of_the_configuration_is_sent_as_it_is(client: HttpProviderClient, up: Upstream) -> None:
    await client.call(call_of(azure(up, azure={"ad_token": "given"})))
    assert (forms(up), served_with(up)) == ([], ["Bearer given"])


async def test_headers_of_the_configuration_authorise_by_themselves(client: HttpProviderClient, up: Upstream) -> None:
    await client.call(call_of(azure(up, azure=None, headers={"Api-Key": "own"})))
    assert up.calls[0].headers["api-key"] == "own"


async def test_a_key_needs_no_token(client: HttpProviderClient, up: Upstream) -> None:
    await client.call(call_of(azure(up, api_key="key-1")))
    assert (forms(up), up.calls[0].headers["api-key"]) == ([], "key-1")


@pytest.mark.parametrize("where", ["text", "file"])
async def test_a_service_account_signs_for_its_token(
    client: HttpProviderClient, up: Upstream, clock: ManualClock, tmp_path: Path, where: str
) -> None:
    file = tmp_path / "account.json"
    file.write_text(account(up))
    up.script(FORM, [granted("ya29.token-1"), Raw(json.dumps(GEMINI))])
    await client.call(call_of(vertex(up, account(up) if where == "text" else str(file))))
    form = form_of(forms(up)[0])
    head, body, signature = form["assertion"].split(".")
    now = clock.now_ms() // 1000
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert json.loads(decoded(body)) == {
        "iss": "a@p-1.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": f"{origin(up)}/token",
        "iat": now,
        "exp": now + 3600,
    }
    assert json.loads(decoded(head)) == {"typ": "JWT", "alg": "RS256", "kid": "key-1"}
    PAIR.public_key().verify(decoded(signature), f"{head}.{body}".encode(), *SCHEME)
    assert served_with(up) == ["Bearer ya29.token-1"]
    path = "/v1/projects/p-1/locations/europe-west1/publishers/google/models/gemini-3-pro:generateContent"
    assert up.calls[1].path == path


async def test_a_users_refresh_token_is_traded_and_its_quota_project_named(
    client: HttpProviderClient, up: Upstream
) -> None:
    user = {"type": "authorized_user", "client_id": "c", "client_secret": SECRET, "refresh_token": "refresh-1"}
    said = json.dumps({**user, "quota_project_id": "q-1", "token_uri": f"{origin(up)}/token"})
    up.script(FORM, [granted("token-1"), Raw(json.dumps(GEMINI))])
    await client.call(call_of(vertex(up, said)))
    assert form_of(forms(up)[0]) == {
        "grant_type": "refresh_token",
        "client_id": "c",
        "client_secret": SECRET,
        "refresh_token": "refresh-1",
    }
    assert up.calls[1].headers["x-goog-user-project"] == "q-1"


async def test_a_file_that_cannot_be_used_names_the_deployment_and_the_field(
    client: HttpProviderClient, up: Upstream, tmp_path: Path
) -> None:
    bad = {
        "not-there.json": None,
        "list.json": "[]",
        "key.json": account(up, private_key="no key"),
        "mail.json": account(up, client_email=""),
        "place.json": account(up, token_uri="http://example.com/token"),
    }
    said = {}
    for name, text in bad.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        error = await refusal(client, call_of(vertex(up, str(tmp_path / name), name=name)))
        assert type(error) is UpstreamUnreachable
        said[name] = error.message.removeprefix(f"deployment {name}: ")
    assert said == {
        "not-there.json": "the file that `vertex_credentials` names cannot be read",
        "list.json": "`vertex_credentials`: its type must be service_account or authorized_user",
        "key.json": "`vertex_credentials`: private_key is not a key in PEM",
        "mail.json": "`vertex_credentials`: client_email is missing",
        "place.json": "`vertex_credentials.token_uri` is not an https URL, and secrets go there",
    }
    assert up.calls == []
