"""Any OpenAI conversation with tools, written as a dialect sends it: nothing of its meaning is lost on the way."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config import Deployment
from schemas.request import CHAT
from workers.providers.catalog import resolve
from workers.providers.dialects import anthropic, gemini

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
ARGUMENTS = st.dictionaries(st.text(max_size=4), st.integers(-9, 9) | st.text(max_size=4) | st.none(), max_size=3)
RESULTS = WORDS | ARGUMENTS.map(lambda value: orjson.dumps(value).decode())


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": draw(st.sampled_from(["system", "developer"])), "content": draw(WORDS)})
    for turn in range(draw(st.integers(1, 4))):
        messages.append({"role": "user", "content": draw(WORDS)})
        calls = [
            {
                "id": f"call_{turn}_{number}",
                "type": "function",
                "function": {"name": draw(st.sampled_from("fgh")), "arguments": orjson.dumps(arguments).decode()},
                "extra_content": {"google": {"thought_signature": f"c2ln{turn}{number}"}},
            }
            for number, arguments in enumerate(draw(st.lists(ARGUMENTS, max_size=3)))
        ]
        text = draw(WORDS) if not calls or draw(st.booleans()) else None
        messages.append({"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})})
        order = draw(st.permutations(calls))
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": draw(RESULTS)} for call in order]
    return [*messages, {"role": "user", "content": draw(WORDS)}]


Said = tuple[str, ...]


def meaning(messages: list[dict[str, Any]]) -> list[Said]:
    """What is said, in its order: who, and a text, a call or a result."""
    said: list[Said] = []
    for message in messages:
        role = message["role"]
        if role == "tool":
            said.append(("result", message["tool_call_id"], canonical(message["content"])))
            continue
        who = "system" if role == "developer" else role
        if message["content"]:
            said.append((who, message["content"]))
        said += [
            ("call", call["id"], call["function"]["name"], canonical(call["function"]["arguments"]))
            for call in message.get("tool_calls", [])
        ]
    return said


def canonical(text: str) -> str:
    try:
        return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        return orjson.dumps(text).decode()


def sent(dialect: Any, provider: str, model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    target = resolve(Deployment(name="a/0", alias="a", provider=provider, model=model))
    before = orjson.dumps(messages)
    found: dict[str, Any] = orjson.loads(dialect.outbound(target, CHAT, {"messages": messages}, streams=False).body)
    assert orjson.dumps(messages) == before
    return found


def anthropic_meaning(body: dict[str, Any]) -> Iterator[Said]:
    for block in body.get("system", []):
        yield "system", block["text"]
    for turn in body["messages"]:
        for block in turn["content"]:
            if block["type"] == "text":
                yield turn["role"], block["text"]
            elif block["type"] == "tool_use":
                yield "call", block["id"], block["name"], canonical(orjson.dumps(block["input"]).decode())
            else:
                yield "result", block["tool_use_id"], canonical(block["content"])


@given(conversations())
@settings(max_examples=200, deadline=None)
def test_a_conversation_keeps_its_meaning_at_anthropic(messages: list[dict[str, Any]]) -> None:
    body = sent(anthropic, "anthropic", "claude-opus-4-6", messages)
    assert list(anthropic_meaning(body)) == meaning(messages)
    roles = [turn["role"] for turn in body["messages"]]
    assert all(one != other for one, other in pairwise(roles))


def gemini_meaning(body: dict[str, Any]) -> Iterator[Said]:
    for part in body.get("systemInstruction", {"parts": []})["parts"]:
        yield "system", part["text"]
    for turn in body["contents"]:
        for part in turn["parts"]:
            if "text" in part:
                yield "assistant" if turn["role"] == "model" else "user", part["text"]
            elif "functionCall" in part:
                call = part["functionCall"]
                yield "call", call["id"], call["name"], canonical(orjson.dumps(call["args"]).decode())
            else:
                told = part["functionResponse"]["response"]
                value = told["result"] if told.keys() == {"result"} else told
                yield "result", part["functionResponse"]["id"], canonical(orjson.dumps(value).decode())


@given(conversations())
@settings(max_examples=200, deadline=None)
def test_a_conversation_keeps_its_meaning_at_gemini(messages: list[dict[str, Any]]) -> None:
    body = sent(gemini, "gemini", "gemini-3-flash-preview", messages)
    assert list(gemini_meaning(body)) == meaning(messages)
    for turn, following in pairwise(body["contents"]):
        calls = sum("functionCall" in part for part in turn["parts"])
        answers = sum("functionResponse" in part for part in following["parts"])
        assert calls == (answers if calls else 0)
    signatures = [
        part["thoughtSignature"] for turn in body["contents"] for part in turn["parts"] if "functionCall" in part
    ]
    told = [
        call["extra_content"]["google"]["thought_signature"]
        for message in messages
        for call in message.get("tool_calls", [])
    ]
    assert signatures == told
