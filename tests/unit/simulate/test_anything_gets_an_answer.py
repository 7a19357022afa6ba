"""Whatever is sent to whichever endpoint, whole HTTP comes back and no exception comes out."""

import copy
import random
from typing import Any

import orjson
import pytest

from broker.simulate.api import Sent
from broker.simulate.behaviour import Behaviour
from broker.simulate.server import Simulator
from tests.integration.simulate.test_faults import STREAMS
from tests.integration.simulate.test_refusals import BODIES
from tests.integration.simulate.test_simulator import KEYS

MUTATIONS = 400
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}
RICH: dict[str, Any] = {
    "openai": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "call f"}, PICTURE]},
            {"role": "assistant", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "x"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "auto", "n": 2, "logprobs": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, "stop": ["a"],
    },
    "anthropic": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "call f", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}]},
        ],
        "tools": [{"name": "f", "input_schema": SCHEMA}], "tool_choice": {"type": "auto"}, "system": "Be brief.",
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}, "stop_sequences": ["a"],
    },
    "gemini": {
        "contents": [
            {"role": "user", "parts": [{"text": "call f"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
        ],
        "tools": [{"functionDeclarations": [FUNCTION]}],
        "generationConfig": {"responseMimeType": "application/json", "responseSchema": SCHEMA, "candidateCount": 2},
    },
    "bedrock": {
        "messages": [
            {"role": "user", "content": [{"text": "call f"}, {"cachePoint": {"type": "default"}}]},
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "c", "name": "f", "input": {}}}]},
            {"role": "user", "content": [{"toolResult": {"toolUseId": "c", "content": [{"text": "x"}]}}]},
        ],
        "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": SCHEMA}}}]},
    },
}  # fmt: skip
"""What makes a request of an API richer than a greeting."""
STRANGE: list[Any] = [None, True, -1, 1e300, "", "x", "\ud7ff", [], {}, [[]], [None], {"type": []}, {"": {}}, "auto", 3]


def changed(body: Any, rng: random.Random) -> Any:
    """Put something strange somewhere, once or a few times."""
    body = copy.deepcopy(body)
    for _ in range(rng.randint(1, 3)):
        place = body
        while isinstance(place, dict | list) and place:
            key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            if rng.random() < 0.3 or not isinstance(place[key], dict | list):
                place[key] = copy.deepcopy(rng.choice(STRANGE))
                if rng.random() < 0.2 and isinstance(place, dict):
                    place[rng.choice(["extra", "type", "name"])] = copy.deepcopy(rng.choice(STRANGE))
                break
            place = place[key]
    return body


def answered(simulator: Simulator, path: str, raw: bytes) -> int:
    play = simulator.play(Sent("POST", path, KEYS, raw))
    told = b"".join(data for _, data in play.pieces)
    play.ended(False)  # noqa: FBT003 - the connection's own call
    version, status, _ = told.split(b" ", 2)
    assert version == b"HTTP/1.1"
    return int(status)


@pytest.mark.parametrize("api", [*BODIES, *(f"{name} streamed" for name in STREAMS)])
def test_a_request_with_strange_fields_gets_an_answer(api: str) -> None:
    name, _, streams = api.partition(" ")
    path, body = (STREAMS if streams else BODIES)[name]
    rng = random.Random(7)  # noqa: S311 - a run that can be repeated
    simulator = Simulator(Behaviour(context_window=100_000))
    rich = {**body, **RICH.get(name, {})}
    statuses = {answered(simulator, path, orjson.dumps(changed(rich, rng))) for _ in range(MUTATIONS)}
    assert answered(simulator, path, orjson.dumps(rich)) == 200
    assert statuses <= {200, 400, 404, 422}
    assert len(statuses) > 1


@pytest.mark.parametrize("api", BODIES)
def test_bytes_that_are_no_json_get_an_answer(api: str) -> None:
    path, body = BODIES[api]
    rng, raw = random.Random(7), orjson.dumps(body)  # noqa: S311 - a run that can be repeated
    simulator = Simulator(Behaviour())
    for _ in range(MUTATIONS):
        broken = bytearray(raw)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        assert answered(simulator, path, bytes(broken)) < 500


def test_json_that_is_nested_ten_thousand_deep_is_refused() -> None:
    path, body = BODIES["openai"]
    nested = b"[" * 10_000 + b"]" * 10_000
    raw = orjson.dumps(body)[:-1] + b',"metadata":' + nested + b"}"
    assert answered(Simulator(Behaviour()), path, raw) == 400
