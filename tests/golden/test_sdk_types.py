"""Golden files against the official SDKs' types: what goes to Anthropic and Gemini and what they answer."""

import json
from typing import Any

import anthropic.types
import pytest
from google.genai import types as google
from pydantic import TypeAdapter, ValidationError

from schemas.request import CHAT
from tests.golden.cases import cases, stream_of
from tests.golden.sdk_types import faults, google_check
from workers.providers.dialects import anthropic_models

SAMPLERS = {"temperature", "top_p", "top_k"}
"""The SDK names them no more, for models from Opus 4.7 on refuse them; those before take them as ever."""


def of(kind: str, *folders: str, endpoint: str = CHAT) -> list[Any]:
    return [
        case
        for case in cases(kind)
        if case.values[0] in folders and case.values[1].get("endpoint", endpoint) == endpoint
    ]


@pytest.mark.parametrize(("folder", "case"), of("requests", "anthropic"))
def test_a_request_is_one_of_anthropics_sdk(folder: str, case: dict[str, Any]) -> None:
    del folder
    sent = dict(case["sent"])
    if anthropic_models.sampled(sent["model"]):
        sent = {name: value for name, value in sent.items() if name not in SAMPLERS}
    assert faults(sent, anthropic.types.MessageCreateParams) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"temperature": 1}, "$.temperature: MessageCreateParamsNonStreaming has no such field"),
        ({"max_tokens": "9"}, "$.max_tokens: '9' is no <class 'int'>"),
        ({"tool_choice": {"type": "some"}}, "$.tool_choice"),
    ],
)
def test_the_check_finds_what_the_sdk_does_not_name(change: dict[str, Any], fault: str) -> None:
    good = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    assert faults(good, anthropic.types.MessageCreateParams) == []
    assert faults({**good, **change}, anthropic.types.MessageCreateParams)[0].startswith(fault)


@pytest.mark.parametrize(("folder", "case"), of("requests", "gemini"))
def test_a_request_is_one_of_googles_sdk(folder: str, case: dict[str, Any]) -> None:
    del folder
    google_check(case["sent"])


@pytest.mark.parametrize(
    "change", [{"contents": [{"role": "user", "part": []}]}, {"generationConfig": {"top_p": 1, "x": 2}}]
)
def test_the_check_finds_what_googles_sdk_does_not_name(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        google_check(change)


@pytest.mark.parametrize(("folder", "case"), of("answers", "anthropic"))
def test_an_answer_is_one_that_anthropics_sdk_reads(folder: str, case: dict[str, Any]) -> None:
    del folder
    anthropic.types.Message.model_validate(case["answer"])


@pytest.mark.parametrize(("folder", "case"), of("answers", "gemini"))
def test_an_answer_is_one_that_googles_sdk_reads(folder: str, case: dict[str, Any]) -> None:
    del folder
    google.GenerateContentResponse.model_validate(case["answer"])


@pytest.mark.parametrize(("folder", "case"), of("streams", "anthropic", "gemini"))
def test_a_stream_is_one_that_its_sdk_reads(folder: str, case: dict[str, Any]) -> None:
    event: TypeAdapter[Any] = TypeAdapter(
        anthropic.types.RawMessageStreamEvent if folder == "anthropic" else google.GenerateContentResponse
    )
    lines = stream_of(folder, case["stream"]).decode().splitlines()
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    for each in told:
        if each.get("type") != "ping":
            event.validate_python(each)
