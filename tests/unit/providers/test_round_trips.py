"""Any valid OpenAI conversation with tools keeps its meaning on its way to a provider, whatever that calls it.

What goes upstream is read back by the readers below, written from each provider's documentation and not from the
dialects: who said what, which functions were called with which arguments, what they gave, in which order.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.request import CHAT
from tests.parameter_table import PROVIDERS, target
from workers.providers.registry import DIALECTS

Item = tuple[Any, ...]
WORDS = st.text('abc äß漢🙂"\\{}\n', min_size=1, max_size=12).map(lambda text: f"x{text}x")
VALUES = st.recursive(
    st.integers(-(10**6), 10**6) | st.booleans() | st.none() | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
ARGUMENTS = st.dictionaries(st.sampled_from(["place", "n", "opts"]), VALUES, max_size=3)
CALLS = st.lists(st.tuples(st.sampled_from(["weather", "add"]), ARGUMENTS, WORDS), max_size=3)
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("weather", "add")
]


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A system's message or none, then rounds of a user, an assistant who may call, and what the calls gave."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        role = draw(st.sampled_from(["system", "developer"]))
        messages.append({"role": role, "content": draw(WORDS)})
    number = 0
    for _ in range(draw(st.integers(1, 3))):
        texts = draw(st.lists(WORDS, min_size=1, max_size=2))
        parts = [{"type": "text", "text": text} for text in texts]
        messages.append({"role": "user", "content": texts[0] if len(texts) == 1 else parts})
        calls = draw(CALLS)
        told = draw(st.none() | WORDS) if calls else draw(WORDS)
        answer: dict[str, Any] = {"role": "assistant", "content": told}
        results = []
        for name, arguments, result in calls:
            number += 1
            function = {"name": name, "arguments": orjson.dumps(arguments).decode()}
            answer.setdefault("tool_calls", []).append({"id": f"c{number}", "type": "function", "function": function})
            results.append({"role": "tool", "tool_call_id": f"c{number}", "content": result})
        messages += [answer, *results]
    if messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": draw(WORDS)})
    return messages


def of_openai(body: Mapping[str, Any]) -> Iterator[Item]:
    for message in body["messages"]:
        role, content = message["role"], message.get("content")
        texts = [content] if isinstance(content, str) else [part["text"] for part in content or []]
        if role == "tool":
            yield ("result", message["tool_call_id"], "".join(texts))
            continue
        for text in texts:
            yield ("system" if role == "developer" else role, text)
        for call in message.get("tool_calls") or []:
            yield ("call", call["id"], call["function"]["name"], orjson.loads(call["function"]["arguments"]))


def of_anthropic(body: Mapping[str, Any]) -> Iterator[Item]:
    yield from (("system", block["text"]) for block in body.get("system", []))
    for message in body["messages"]:
        for block in message["content"]:
            match block["type"]:
                case "text":
                    yield (message["role"], block["text"])
                case "tool_use":
                    yield ("call", block["id"], block["name"], block["input"])
                case "tool_result":
                    content = block["content"]
                    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
                    yield ("result", block["tool_use_id"], text)


def of_gemini(body: Mapping[str, Any]) -> Iterator[Item]:
    yield from (("system", part["text"]) for part in body.get("systemInstruction", {}).get("parts", []))
    for turn in body["contents"]:
        for part in turn["parts"]:
            if "text" in part:
                yield ("assistant" if turn["role"] == "model" else "user", part["text"])
            elif "functionCall" in part:
                call = part["functionCall"]
                yield ("call", call["id"], call["name"], call["args"])
            else:
                given_ = part["functionResponse"]
                yield ("result", given_["id"], given_["response"]["result"])


def of_cohere(body: Mapping[str, Any]) -> Iterator[Item]:
    for message in body["messages"]:
        role, content = message["role"], message.get("content")
        texts = [content] if isinstance(content, str) else [_cohere_text(part) for part in content or []]
        if role == "tool":
            yield ("result", message["tool_call_id"], "".join(texts))
            continue
        texts = [message["tool_plan"], *texts] if message.get("tool_plan") else texts
        yield from ((role, text) for text in texts)
        for call in message.get("tool_calls") or []:
            yield ("call", call["id"], call["function"]["name"], orjson.loads(call["function"]["arguments"]))


def _cohere_text(part: Mapping[str, Any]) -> str:
    if part["type"] == "document":
        data = part["document"]["data"]
        return str(data if isinstance(data, str) else next(iter(data.values())))
    return str(part["text"])


def of_bedrock(body: Mapping[str, Any]) -> Iterator[Item]:
    yield from (("system", block["text"]) for block in body.get("system", []))
    for message in body["messages"]:
        for block in message["content"]:
            if "text" in block:
                yield (message["role"], block["text"])
            elif "toolUse" in block:
                yield ("call", block["toolUse"]["toolUseId"], block["toolUse"]["name"], block["toolUse"]["input"])
            else:
                told = block["toolResult"]
                yield ("result", told["toolUseId"], "".join(part["text"] for part in told["content"]))


READERS: dict[str, Callable[[Mapping[str, Any]], Iterator[Item]]] = {
    "openai": of_openai,
    "azure": of_openai,
    "mistral": of_openai,
    "groq": of_openai,
    "anthropic": of_anthropic,
    "gemini": of_gemini,
    "vertex_ai": of_gemini,
    "cohere": of_cohere,
    "bedrock": of_bedrock,
}


WITH_IDS: dict[str, dict[str, Any]] = {name: {"model": "gemini-3-pro"} for name in ("gemini", "vertex_ai")}
"""Models before Gemini 3 refuse the id of a call, and match results by order."""


def test_there_is_a_reader_for_every_provider_of_the_table() -> None:
    assert READERS.keys() == PROVIDERS.keys()


@pytest.mark.parametrize("provider", READERS)
@given(messages=conversations())
@settings(max_examples=50, deadline=None)
def test_a_conversation_keeps_its_meaning(provider: str, messages: list[dict[str, Any]]) -> None:
    asked = {"model": "a", "messages": messages, "tools": TOOLS}
    resolved = target(provider, **WITH_IDS.get(provider, {}))
    raw = DIALECTS[resolved.provider.dialect].outbound(resolved, CHAT, asked, streams=False).body
    assert list(READERS[provider](orjson.loads(raw))) == list(of_openai(asked))
