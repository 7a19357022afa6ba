"""The provider client against the scripted upstream, over both engines."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.config import Deployment
from broker.errors import (
    BadUpstreamResponse,
    ContextLengthExceeded,
    RequestError,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tests.upstream import BreakingStream, Drop, Events, Hang, Html, Ok, Raw, Sse, Status, Step, TruncatedJson, Upstream
from workers.providers.base import Call, Usage
from workers.providers.client import OFF_LOOP_BYTES, HttpProviderClient
from workers.providers.transport import Engine, make_transport

CHAT = "/v1/chat/completions"
KEY = "sk-very-secret-key"


@pytest.fixture(params=["pyreqwest", "httpx"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[HttpProviderClient]:
    engine: Engine = request.param
    client = HttpProviderClient(make_transport(64, prefer=engine))
    yield client
    await client.close()


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


def a_call(up: Upstream, endpoint: str = CHAT, *, timeout: float = 10.0, body: Any = None, **fields: Any) -> Call:
    fields = {"name": "a/0", "alias": "a", "provider": "hosted_vllm", "model": "m", "api_base": up.url, **fields}
    messages = {"model": "a", "messages": [{"role": "user", "content": "hi there"}]}
    return Call(Deployment(api_key=KEY, **fields), endpoint, body or messages, timeout, "request-1", "00-ab-cd-01")


class Chunks(list[dict[str, Any]]):
    async def __call__(self, data: bytes) -> None:
        self.append(json.loads(data))

    @property
    def text(self) -> str:
        return "".join(choice["delta"].get("content") or "" for chunk in self for choice in chunk["choices"])


def a_chunk(content: str = "", finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content, **delta}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


async def test_a_call_names_the_model_the_key_and_the_request(client: HttpProviderClient, up: Upstream) -> None:
    result = await client.call(a_call(up))
    assert json.loads(result.body)["choices"][0]["message"]["content"] == "echo: hi there"
    assert (result.model, result.ttft_ms) == ("m", None)
    assert result.usage == Usage(
        9, output_tokens=3, raw={"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    )
    sent = up.calls[0]
    assert (sent.path, sent.json["model"], sent.request_id) == (CHAT, "m", "request-1")
    assert (sent.headers["authorization"], sent.headers["traceparent"]) == (f"Bearer {KEY}", "00-ab-cd-01")


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [("/v1/embeddings", {"input": ["a", "b"]}), ("/v1/completions", {"prompt": "hi"})],
)
async def test_the_other_endpoints_are_served(
    client: HttpProviderClient, up: Upstream, endpoint: str, body: dict[str, Any]
) -> None:
    result = await client.call(a_call(up, endpoint, body=body))
    assert (up.calls[0].path, result.usage.input_tokens) == (endpoint, 9)


async def test_a_request_id_that_http_cannot_carry_is_encoded(client: HttpProviderClient, up: Upstream) -> None:
    call = a_call(up)
    await client.call(Call(call.deployment, CHAT, call.body, 10, "übel\r\nx: y", "00\n"))
    assert up.calls[0].request_id == "%C3%BCbel%0D%0Ax%3A%20y"
    assert "traceparent" not in up.calls[0].headers


BAD_ANSWERS: list[Step] = [
    Html(),
    TruncatedJson(),
    Sse(),
    Drop(after_bytes=30),
    Raw(""),
    Raw("{}"),
    Raw("[]"),
    Status(302, headers={"location": "http://127.0.0.1:1"}),
]


@pytest.mark.parametrize("step", BAD_ANSWERS, ids=repr)
async def test_what_is_not_the_contract_is_a_502(client: HttpProviderClient, up: Upstream, step: Step) -> None:
    up.script("m", [step])
    with pytest.raises(BadUpstreamResponse) as caught:
        await client.call(a_call(up))
    assert (caught.value.status, caught.value.code, len(up.calls)) == (502, "bad_upstream_response", 1)


async def test_a_dropped_connection_and_a_silent_upstream_have_their_own_errors(
    client: HttpProviderClient, up: Upstream
) -> None:
    up.script("m", [Drop(), Hang()])
    with pytest.raises(UpstreamUnreachable):
        await client.call(a_call(up))
    with pytest.raises(UpstreamTimeout):
        await client.call(a_call(up, timeout=0.2))
    with pytest.raises(UpstreamTimeout):
        await client.call(a_call(up, timeout=0))
    assert len(up.calls) == 2


async def test_an_upstreams_error_keeps_its_status_code_and_wait(client: HttpProviderClient, up: Upstream) -> None:
    body = {"error": {"message": f"Incorrect API key provided: {KEY}.", "type": "auth", "code": "invalid_api_key"}}
    up.script("m", [Status(429, retry_after=3), Status(401, body=body)])
    with pytest.raises(UpstreamError) as caught:
        await client.call(a_call(up))
    assert (caught.value.status, caught.value.retry_after) == (429, 3.0)
    with pytest.raises(UpstreamError) as caught:
        await client.call(a_call(up))
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert (caught.value.message, str(caught.value)) == ("Incorrect API key provided: ***.",) * 2


@pytest.mark.parametrize(
    "fields", [{"provider": "bedrock"}, {"api_base": "nowhere"}, {"provider": "new", "api_base": None}]
)
async def test_a_deployment_that_cannot_be_called_is_unreachable_and_named(
    client: HttpProviderClient, up: Upstream, fields: dict[str, Any]
) -> None:
    with pytest.raises(UpstreamUnreachable, match="deployment a/0"):
        await client.call(a_call(up, **fields))


async def test_a_deployment_that_changes_under_its_name_is_worked_out_again(
    client: HttpProviderClient, up: Upstream
) -> None:
    await client.call(a_call(up))
    await client.call(a_call(up, model="other"))
    assert [call.model for call in up.calls] == ["m", "other"]


async def test_a_large_answer_is_read_off_the_loop(client: HttpProviderClient, up: Upstream) -> None:
    up.script("m", [Ok("x" * OFF_LOOP_BYTES)])
    result = await client.call(a_call(up))
    assert len(result.body) > OFF_LOOP_BYTES
    assert result.usage.input_tokens == 9


async def test_a_stream_gives_chunks_as_they_come_and_the_whole_at_the_end(
    client: HttpProviderClient, up: Upstream
) -> None:
    up.script("m", [Ok("one two three", chunk_delay=0.01)])
    chunks = Chunks()
    result = await client.call(a_call(up), chunks)
    assert chunks.text == "one two three"
    assert all(chunk["choices"] for chunk in chunks), "a usage chunk that nobody asked for was passed on"
    body = json.loads(result.body)
    assert (body["object"], body["choices"][0]["message"]) == (
        "chat.completion",
        {"role": "assistant", "content": "one two three"},
    )
    assert (result.usage.output_tokens, result.usage.estimated) == (3, False)
    assert result.ttft_ms is not None
    assert up.calls[0].json["stream_options"] == {"include_usage": True}


async def test_the_usage_chunk_goes_to_those_who_asked_for_it(client: HttpProviderClient, up: Upstream) -> None:
    chunks, body = Chunks(), {"messages": [], "stream_options": {"include_usage": True}}
    await client.call(a_call(up, body=body), chunks)
    assert chunks[-1]["usage"]["completion_tokens"] == 3


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
EARLY = {**USAGE, "completion_tokens": 1}
ASKED = {"messages": [{"role": "user", "content": "hi there"}], "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("events", "usage"),
    [
        ([{**a_chunk("a"), "usage": EARLY}, {**a_chunk("b", "stop"), "usage": USAGE}], USAGE),
        ([a_chunk("a", "stop"), {**a_chunk(), "choices": [], "usage": USAGE}], USAGE),
        ([{**a_chunk(), "choices": [], "usage": EARLY}, {**a_chunk("a", "stop"), "usage": USAGE}], USAGE),
        ([a_chunk("five tokens of four", "stop")], {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}),
    ],
    ids=["with every chunk", "as asked", "twice", "never"],
)  # fmt: skip
async def test_usage_is_told_once_at_the_end_whenever_the_upstream_tells_it(
    client: HttpProviderClient, up: Upstream, events: list[Any], usage: dict[str, int]
) -> None:
    up.script("m", [Events([*events, b"[DONE]"])])
    chunks = Chunks()
    result = await client.call(a_call(up, body=ASKED), chunks)
    assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == [usage]
    assert chunks[-1] == {
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage,
    }  # fmt: skip
    assert result.usage.estimated is (usage != USAGE)


async def test_nothing_is_handed_on_before_content_comes(client: HttpProviderClient, up: Upstream) -> None:
    up.script(
        "m", [BreakingStream(after=1, chunk_delay=0.01), Events([a_chunk(role="assistant"), a_chunk("", "stop")])]
    )
    chunks, call = Chunks(), a_call(up)
    with pytest.raises(BadUpstreamResponse) as caught:
        await client.call(call, chunks)
    assert (list(chunks), call.progress.chunks, call.progress.partial()) == ([], 0, None)
    assert "the stream broke after" not in caught.value.message
    whole = await client.call(a_call(up), chunks)
    assert ([chunk["choices"][0]["finish_reason"] for chunk in chunks], whole.ttft_ms) == ([None, "stop"], None)


async def test_a_stream_that_breaks_tells_how_much_of_it_came(client: HttpProviderClient, up: Upstream) -> None:
    up.script("m", [BreakingStream(after=4)])
    chunks, call = Chunks(), a_call(up)
    with pytest.raises(BadUpstreamResponse, match=r"^the stream broke after 4 chunks: "):
        await client.call(call, chunks)
    found = call.progress.partial()
    assert found is not None
    assert (found.model, found.usage, found.ttft_ms is not None) == (
        "m",
        Usage(2, output_tokens=5, estimated=True),
        True,
    )


async def test_a_connection_that_breaks_once_the_answer_is_whole_takes_nothing_from_it(
    client: HttpProviderClient, up: Upstream
) -> None:
    up.script("m", [Events([a_chunk("all of it"), a_chunk("", "stop")], breaks=True, chunk_delay=0.01)])
    chunks = Chunks()
    result = await client.call(a_call(up), chunks)
    assert (chunks.text, result.usage.estimated) == ("all of it", True)
    assert json.loads(result.body)["choices"][0]["finish_reason"] == "stop"


async def test_a_response_that_is_cut_is_estimated_by_its_texts(client: HttpProviderClient, up: Upstream) -> None:
    response: dict[str, Any] = {
        "id": "r",
        "object": "response",
        "model": "served",
        "status": "in_progress",
        "output": [],
        "usage": None,
    }
    events = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "content": []}},
        {"type": "response.output_text.delta", "delta": "twelve "},
        {"type": "response.output_text.delta", "delta": "chars"},
    ]
    up.script("m", [Events(events)])
    chunks, call = Chunks(), a_call(up, "/v1/responses", body={"input": "eight ch"})
    with pytest.raises(BadUpstreamResponse, match=r"^the stream broke after 4 chunks: "):
        await client.call(call, chunks)
    found = call.progress.partial()
    assert found is not None
    assert (found.model, found.usage) == ("served", Usage(2, output_tokens=3, estimated=True))


async def test_connections_of_streams_are_used_again(client: HttpProviderClient, up: Upstream) -> None:
    for _ in range(3):
        await client.call(a_call(up), Chunks())
    assert [call.disconnected for call in up.calls] == [False] * 3


async def test_a_stream_whose_server_keeps_the_connection_after_done_is_over(
    client: HttpProviderClient, up: Upstream
) -> None:
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}
    up.script(
        "m",
        [
            Events(
                [b'data: {"choices": [%s]}\n\ndata: [DONE]\n\n' % json.dumps(choice).encode(), b"data: \n\n"],
                chunk_delay=60,
            )
        ],
    )
    result = await client.call(a_call(up), Chunks())
    assert json.loads(result.body)["choices"][0]["message"]["content"] == "a"
    await up.until(lambda: up.in_flight == 0)


BAD_STREAMS: list[Step] = [
    Html(),
    BreakingStream(after=2),
    BreakingStream(after=2, chunk_delay=0.01),
    Events([{"choices": [{"index": 0, "delta": {"content": "a"}}]}]),
    Events([{"error": {"message": "the engine died"}}]),
    Events([b"data: {\n\n"]),
    TruncatedJson(),
]


@pytest.mark.parametrize("step", BAD_STREAMS, ids=repr)
async def test_a_stream_that_is_none_or_not_whole_is_a_502(
    client: HttpProviderClient, up: Upstream, step: Step
) -> None:
    up.script("m", [step])
    with pytest.raises(BadUpstreamResponse):
        await client.call(a_call(up), Chunks())


async def test_a_document_in_place_of_a_stream_is_an_answer(client: HttpProviderClient, up: Upstream) -> None:
    document = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}}]}
    up.script("m", [Raw(json.dumps(document))])
    chunks = Chunks()
    result = await client.call(a_call(up), chunks)
    assert (json.loads(result.body), list(chunks)) == (document, [])


async def test_an_error_in_place_of_a_stream_is_that_error(client: HttpProviderClient, up: Upstream) -> None:
    body = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    up.script("m", [Status(400, body=body)])
    with pytest.raises(ContextLengthExceeded):
        await client.call(a_call(up), Chunks())


async def test_a_stream_that_falls_silent_ends_at_its_own_timeout(client: HttpProviderClient, up: Upstream) -> None:
    up.script("m", [Ok("one two three", chunk_delay=60)])
    with pytest.raises(UpstreamTimeout):
        await client.call(a_call(up, stream_timeout=0.2), Chunks())
    await up.until(lambda: up.in_flight == 0)


async def test_a_cancelled_stream_closes_its_connection(client: HttpProviderClient, up: Upstream) -> None:
    up.script("m", [Events([a_chunk("one"), a_chunk("two")], chunk_delay=60)])
    first = asyncio.Event()

    async def on_chunk(_: bytes) -> None:
        first.set()

    task = asyncio.create_task(client.call(a_call(up, timeout=60), on_chunk))
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await up.until(lambda: up.in_flight == 0)
    assert up.calls[0].disconnected


async def test_embeddings_are_never_streamed(client: HttpProviderClient, up: Upstream) -> None:
    chunks = Chunks()
    await client.call(a_call(up, "/v1/embeddings", body={"input": "a", "stream": True}), chunks)
    assert ("stream" in up.calls[0].json, list(chunks)) == (False, [])


async def test_many_calls_at_once_keep_their_answers_apart(client: HttpProviderClient, up: Upstream) -> None:
    up.default = Ok(delay=0.05)
    base = a_call(up)

    async def one(number: int) -> str:
        body = {"messages": [{"role": "user", "content": f"number {number}"}]}
        result = await client.call(Call(base.deployment, CHAT, body, 30, f"id-{number}"))
        return str(json.loads(result.body)["choices"][0]["message"]["content"])

    found = await asyncio.gather(*(one(number) for number in range(100)))
    assert found == [f"echo: number {number}" for number in range(100)]
    assert set(up.counts.values()) == {1}


async def test_every_error_is_a_request_error(client: HttpProviderClient, up: Upstream) -> None:
    statuses = (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)
    up.script("m", [Raw("x", status) for status in statuses])
    for status in statuses:
        with pytest.raises(RequestError) as caught:
            await client.call(a_call(up))
        assert caught.value.status == status
