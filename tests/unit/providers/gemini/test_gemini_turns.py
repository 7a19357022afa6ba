"""What Gemini wants of a conversation with calls: their signatures, and a turn of as many results right after."""

from itertools import pairwise
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.request import CHAT
from tests.unit.providers.gemini.test_gemini import target
from workers.providers.dialects import gemini

ROUNDS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans(), st.randoms()), min_size=1, max_size=4)


def conversation(rounds: list[tuple[int, bool, bool, Any]]) -> list[dict[str, Any]]:
    """Return rounds of a user, an assistant with calls, words or both, results in any order, and a user again."""
    messages: list[dict[str, Any]] = []
    for number, (count, speaks, interrupted, random) in enumerate(rounds):
        calls = [
            {
                "id": f"c{number}_{place}",
                "type": "function",
                "function": {"name": f"f{place}", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": f"s{number}{place}"}},
            }
            for place in range(count)
        ]
        messages.append({"role": "user", "content": "Go."})
        text = "Well." if speaks or not calls else None
        messages.append({"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})})
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in calls]
        random.shuffle(results)
        messages += [*results, *([{"role": "user", "content": "And?"}] if interrupted else [])]
    return messages


@given(ROUNDS)
@settings(max_examples=50, deadline=None)
def test_signatures_survive_and_as_many_results_as_calls_follow_in_a_turn_of_their_own(
    rounds: list[tuple[int, bool, bool, Any]],
) -> None:
    messages = conversation(rounds)
    body = orjson.loads(gemini.outbound(target(), CHAT, {"messages": messages}, streams=False).body)
    turns = [*body["contents"], {"parts": []}]
    for turn, following in pairwise(turns):
        calls = sum("functionCall" in part for part in turn["parts"])
        answers = ["functionResponse" in part for part in following["parts"]]
        assert sum(answers) == calls
        assert len(set(answers)) < 2
    parts = [part for turn in turns for part in turn["parts"] if "functionCall" in part]
    assert [part["thoughtSignature"] for part in parts] == [
        call["extra_content"]["google"]["thought_signature"]
        for message in messages
        for call in message.get("tool_calls", [])
    ]
