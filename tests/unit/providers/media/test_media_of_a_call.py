"""Calls of a provider whose files are fetched here: bytes go upstream, and URLs stay where it takes them."""

import base64
import copy
from typing import Any

import pytest

from broker.config import Deployment, Media
from broker.errors import InvalidRequest
from tests.unit.providers.media.test_media_fetcher import PARAM, PNG, Names, answering, body_of, serving
from tests.upstream import Upstream
from workers.providers.base import Call
from workers.providers.client import HttpProviderClient
from workers.providers.media import MediaFetcher
from workers.providers.transport import make_transport

CHAT = "/v1/chat/completions"


def a_call(up: Upstream, body: dict[str, Any]) -> Call:
    deployment = Deployment(name="a/0", alias="a", provider="hosted_vllm", model="m", api_base=up.url)
    return Call(deployment, CHAT, body, 10.0, "request-1")


async def test_bytes_go_upstream_in_place_of_a_url_and_the_callers_body_stays() -> None:
    async with Upstream() as up, serving(answering()) as server:
        media = Media(allowed_hosts=(f"*:{server.port}",), fetch_for=("hosted_vllm",))
        fetcher = MediaFetcher(media, resolve=Names(x=[["127.0.0.1"]]), judge=lambda address: address.is_loopback)
        client = HttpProviderClient(make_transport(4, prefer="httpx"), media=fetcher)
        body = body_of(f"http://x.example:{server.port}/")
        before = copy.deepcopy(body)
        await client.call(a_call(up, body))
        await client.close()
        (sent,) = up.calls
    url = sent.json["messages"][0]["content"][0]["image_url"]["url"]
    assert (url, body) == ("data:image/png;base64," + base64.b64encode(PNG).decode(), before)


async def test_a_provider_that_takes_urls_gets_them_as_they_are() -> None:
    async with Upstream() as up:
        client = HttpProviderClient(make_transport(4, prefer="httpx"))
        await client.call(a_call(up, body_of("http://x.example/")))
        await client.close()
        (sent,) = up.calls
    assert sent.json["messages"] == body_of("http://x.example/")["messages"]


async def test_what_may_not_be_fetched_is_the_callers_400_and_no_call_is_made() -> None:
    async with Upstream() as up:
        fetcher = MediaFetcher(Media(fetch_for=("hosted_vllm",)))
        client = HttpProviderClient(make_transport(4, prefer="httpx"), media=fetcher)
        with pytest.raises(InvalidRequest, match="allowed_hosts") as caught:
            await client.call(a_call(up, body_of("http://x.example/")))
        await client.close()
        assert (caught.value.param, up.calls) == (PARAM, [])
