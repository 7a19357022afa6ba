"""What goes to Azure and Vertex is valid by the official SDKs' own types, and holds nothing that they do not know."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pytest
from anthropic.types import MessageCreateParams
from google.genai import types
from openai.types import CompletionCreateParams, EmbeddingCreateParams, ImageGenerateParams, ModerationCreateParams
from openai.types.audio import SpeechCreateParams
from openai.types.chat import CompletionCreateParams as ChatCreateParams
from openai.types.responses import ResponseCreateParams
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from schemas.request import CHAT, COMPLETIONS, EMBEDDINGS, IMAGES, MODERATIONS, RESPONSES, SPEECH
from tests.golden.cases import cases


def refuse_unknown_fields(package: str) -> None:
    """Have every TypedDict of an SDK's types refuse what it does not name; the SDK itself validates none of them."""
    loaded = [module for name, module in sys.modules.items() if name.startswith(package)]
    for kind in {each for module in loaded for each in vars(module).values() if is_typeddict(each)}:
        kind.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


refuse_unknown_fields("openai.types")
refuse_unknown_fields("anthropic.types")

PARAMS: Final[dict[str, TypeAdapter[Any]]] = {
    CHAT: TypeAdapter(ChatCreateParams),
    COMPLETIONS: TypeAdapter(CompletionCreateParams),
    EMBEDDINGS: TypeAdapter(EmbeddingCreateParams),
    RESPONSES: TypeAdapter(ResponseCreateParams),
    IMAGES: TypeAdapter(ImageGenerateParams),
    MODERATIONS: TypeAdapter(ModerationCreateParams),
    SPEECH: TypeAdapter(SpeechCreateParams),
}
MESSAGE: Final[TypeAdapter[Any]] = TypeAdapter(MessageCreateParams)


class GenerateContent(BaseModel):
    """The body of generateContent, by the SDK's types of its fields."""

    model_config = {"extra": "forbid"}

    contents: list[types.Content]
    systemInstruction: types.Content | None = None  # noqa: N815 - the API's own name
    tools: list[types.Tool] | None = None
    toolConfig: types.ToolConfig | None = None  # noqa: N815
    generationConfig: types.GenerationConfig | None = None  # noqa: N815
    safetySettings: list[types.SafetySetting] | None = None  # noqa: N815
    serviceTier: types.ServiceTier | None = None  # noqa: N815
    labels: dict[str, str] | None = None


class Instance(BaseModel):
    """A text of `predict`, by the names the SDK writes (`google.genai.models`, embed_content on Vertex)."""

    model_config = {"extra": "forbid", "strict": True}

    content: str
    task_type: str | None = None
    title: str | None = None


class Parameters(BaseModel):
    """The parameters of `predict`, by the same source."""

    model_config = {"extra": "forbid", "strict": True}

    outputDimensionality: int | None = None  # noqa: N815
    autoTruncate: bool | None = None  # noqa: N815


class Predict(BaseModel):
    """The body of `predict` for embeddings."""

    model_config = {"extra": "forbid"}

    instances: list[Instance]
    parameters: Parameters | None = None


def sent_to(folder: str) -> list[Any]:
    return [each for each in cases("requests") if each.values[0] == folder]


def of(case: dict[str, Any], endpoint: str, *, claude: bool = False) -> bool:
    return bool(case["endpoint"] == endpoint and case["deployment"]["model"].startswith("claude") == claude)


def check(adapter: TypeAdapter[Any], body: dict[str, Any]) -> None:
    """Raise `ValidationError` for a body that the type does not take; what it reads lazily is read to its end."""
    left = [adapter.validate_python(body)]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
            left.extend(value)


@pytest.mark.parametrize(("folder", "case"), [*sent_to("azure"), *sent_to("openai_api")])
def test_what_goes_to_openai_and_azure_is_openais(folder: str, case: dict[str, Any]) -> None:
    del folder
    check(PARAMS[case["endpoint"]], case["sent"])


@pytest.mark.parametrize(("folder", "case"), sent_to("vertex"))
def test_what_goes_to_vertex_is_what_the_sdks_know(folder: str, case: dict[str, Any]) -> None:
    del folder
    sent = case["sent"]
    if of(case, CHAT):
        GenerateContent.model_validate(sent)
    elif of(case, EMBEDDINGS):
        Predict.model_validate(sent)
    else:
        assert of(case, CHAT, claude=True)
        message = {name: value for name, value in sent.items() if name != "anthropic_version"}
        check(MESSAGE, {**message, "model": case["deployment"]["model"]})


@pytest.mark.parametrize(
    "change",
    [
        {"max_token": 5},
        {"max_tokens": "many"},
        {"messages": [{"role": "user", "content": "x", "a": 1}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "txt": "x"}]}]},
        {"tools": [{"type": "function", "function": {"nam": "f"}}]},
    ],
)
def test_what_openai_does_not_know_would_be_seen(change: dict[str, Any]) -> None:
    good = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    check(PARAMS[CHAT], good)
    with pytest.raises(ValidationError):
        check(PARAMS[CHAT], {**good, **change})


def kinds(listed: Iterable[Any]) -> dict[str, int]:
    return {folder: sum(each.values[0] == folder for each in listed) for folder in ("azure", "vertex")}


def test_there_are_enough_of_each_kind() -> None:
    counted = {kind: kinds(cases(kind)) for kind in ("requests", "answers", "streams", "errors")}
    least = {"requests": 12, "answers": 4, "streams": 3, "errors": 8}
    assert [(kind, folder) for kind, found in counted.items() for folder, n in found.items() if n < least[kind]] == []
