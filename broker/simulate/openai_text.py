"""OpenAI's legacy completions. Source: platform.openai.com/docs/api-reference/completions."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from broker.simulate.answers import Answer, Ending, Wanted
from broker.simulate.api import Body, Job, Sent, refuse, route, sse
from broker.simulate.openai_chat import usage
from broker.simulate.openai_words import OPENAI, authorize
from broker.simulate.samples import token_texts
from broker.simulate.shapes import (
    FILLED,
    TEXT,
    Shape,
    boolean,
    either,
    integer,
    listed,
    mapping,
    number,
    struct,
)

COMPLETIONS: Final[Mapping[str, Shape]] = {
    "model": FILLED,
    "prompt": either(TEXT, listed(TEXT, 1), listed(integer(0), 1), listed(listed(integer(0), 1), 1)),
    "best_of": integer(0, 20),
    "echo": boolean,
    "frequency_penalty": number(-2, 2),
    "logit_bias": mapping,
    "logprobs": integer(0, 5),
    "max_tokens": integer(0),
    "n": integer(1, 128),
    "presence_penalty": number(-2, 2),
    "seed": integer(),
    "stop": either(TEXT, listed(TEXT, 1, 4)),
    "stream": boolean,
    "stream_options": struct({"include_usage": boolean, "include_obfuscation": boolean}),
    "suffix": TEXT,
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "user": TEXT,
}
REQUEST: Final = struct(COMPLETIONS, "model", "prompt")
USUAL_TOKENS: Final = 16
"""`max_tokens` where the request does not say."""


def completions(sent: Sent) -> Job:
    """Check a request."""
    body: Body = sent.body()
    REQUEST(body, ())
    if (body.get("best_of") or 1) < (body.get("n") or 1):
        body = {**body, "best_of": body["n"]} if body.get("best_of") is None else body
        if body["best_of"] < body["n"]:
            refuse("You requested that the server return more choices than it will generate.", "best_of")
    if body.get("stream_options") is not None and not body.get("stream"):
        refuse("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    given, stop, most = body["prompt"], body.get("stop") or (), body.get("max_tokens")
    prompts = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    wanted = Wanted(
        model=body["model"],
        prompt="".join(str(each) for each in prompts),
        most=USUAL_TOKENS if most is None else most,
        streams=body.get("stream") is True,
        choices=(body.get("n") or 1) * len(prompts),
        stop=[stop] if isinstance(stop, str) else stop,
    )
    counts = (body.get("stream_options") or {}).get("include_usage") is True
    top = body.get("logprobs")
    echoed = str(given) if body.get("echo") and isinstance(given, str) else ""
    return Job(wanted, lambda answer: _whole(answer, top, echoed), lambda answer: _stream(answer, counts=counts))


def _head(answer: Answer) -> dict[str, Any]:
    return {"id": f"cmpl-{answer.plan.identity}", "object": "text_completion", "created": answer.plan.created,
            "model": answer.wanted.model}  # fmt: skip


def _reason(answer: Answer) -> str:
    if answer.ending is Ending.FILTERED:
        return "content_filter"
    return "length" if answer.ending is Ending.LENGTH else "stop"


def _logprobs(text: str, top: int | None) -> dict[str, Any] | None:
    if top is None:
        return None
    tokens = token_texts(text)
    return {
        "tokens": tokens,
        "token_logprobs": [-0.1] * len(tokens),
        "top_logprobs": [{token: -0.1} for token in tokens] if top else None,
        "text_offset": [index * 4 for index in range(len(tokens))],
    }


def _whole(answer: Answer, top: int | None, echoed: str) -> dict[str, Any]:
    choices = [
        {"index": index, "text": echoed + text, "logprobs": _logprobs(text, top), "finish_reason": _reason(answer)}
        for index, text in enumerate(answer.texts)
    ]
    return {**_head(answer), "choices": choices, "usage": usage(answer)}


def _stream(answer: Answer, *, counts: bool) -> Iterator[bytes]:
    head = _head(answer)
    more: dict[str, Any] = {"usage": None} if counts else {}
    for index, text in enumerate(answer.texts):
        pieces = answer.pieces(text) or [""]
        for place, piece in enumerate(pieces, 1):
            reason = _reason(answer) if place == len(pieces) else None
            choice = {"index": index, "text": piece, "logprobs": None, "finish_reason": reason}
            yield sse({**head, "choices": [choice], **more})
    if counts:
        yield sse({**head, "choices": [], "usage": usage(answer)})
    yield b"data: [DONE]\n\n"


ROUTES: Final = (route(OPENAI, "/v1/completions", authorize, completions),)
