"""What a request asks for and what it gets, whatever its API calls it. Pure."""

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from broker.simulate import samples
from broker.simulate.samples import tokens_of

MOST_CALLS: Final = 8
"""Calls in one turn, however often the prompt names a tool."""
REFUSAL: Final = "I'm sorry, but I can't help with that."
NAMES: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Tools:
    """The functions on offer and how freely they may be called."""

    offered: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name → JSON schema of the arguments."""
    forced: Sequence[str] = ()
    """Of these one has to be called; empty where nothing is forced."""
    parallel: bool = True
    asked_in: str = ""
    """The user's last words: a tool they name is called, once for each time; empty after a tool's result."""

    def chosen(self) -> list[str]:
        """Return the names to call, in order; with `parallel` two where more than one is forced."""
        if self.forced:
            calls = list(self.forced[:2])
        elif self.asked_in and self.offered:
            calls = [word for word in NAMES.findall(self.asked_in) if word in self.offered][:MOST_CALLS]
        else:
            calls = []
        return calls if self.parallel else calls[:1]


@dataclass(frozen=True)
class Wanted:
    """What a valid request asks for."""

    model: str
    prompt: str
    """All texts that are sent, in order, for counting tokens and knowing a prefix again."""
    most: int | None = None
    """Bound on the output tokens."""
    streams: bool = False
    tools: Tools = Tools()
    schema: Mapping[str, Any] | None = None
    """What the answer has to fit."""
    choices: int = 1
    stop: Sequence[str] = ()
    reasoning: int = 0
    """Tokens of thought before the answer."""
    marks: Sequence[int] | None = None
    """Characters of the prompt up to each cache marker; None where the provider finds known prefixes by itself."""
    generates: bool = True
    """Whether output tokens are made: not by embeddings, scores or moderations."""
    text: str | None = None
    """The answer where it follows from the request."""
    billed: bool = True
    """Whether it is a call of a model: the rest meets no fault and no limit and costs nothing."""


@dataclass(frozen=True)
class Plan:
    """How a call is answered."""

    identity: str
    """24 hexadecimal digits, the call's own."""
    created: int
    """Unix seconds."""
    output_tokens: int
    cached: int = 0
    written: int = 0
    text: str | None = None
    """Another text than the usual."""
    refuses: bool = False
    filtered: bool = False
    tier: str = "default"


class Ending(enum.Enum):
    """Why an answer ends."""

    STOP = enum.auto()
    SEQUENCE = enum.auto()
    LENGTH = enum.auto()
    CALLS = enum.auto()
    REFUSAL = enum.auto()
    FILTERED = enum.auto()


@dataclass(frozen=True)
class ToolCall:
    """One call of a function."""

    identity: str
    name: str
    arguments: Mapping[str, Any]

    @property
    def raw(self) -> str:
        """The arguments as JSON text."""
        return orjson.dumps(self.arguments).decode()


@dataclass(frozen=True)
class Answer:
    """One answer."""

    plan: Plan
    wanted: Wanted
    texts: Sequence[str]
    """One a choice."""
    calls: Sequence[ToolCall]
    thought: str
    ending: Ending
    stopped_by: str | None
    prompt_tokens: int
    """All that were sent, those from a cache included."""
    output_tokens: int
    """Of all choices, thoughts included."""
    reasoning_tokens: int

    @property
    def text(self) -> str:
        """The first choice's."""
        return self.texts[0]

    def pieces(self, told: str | None = None) -> list[str]:
        """Cut a text as a stream sends it: a token at a time."""
        return samples.pieces(self.text if told is None else told, max(1, self.plan.output_tokens))


def compose(wanted: Wanted, plan: Plan) -> Answer:
    """Answer a request as planned."""
    reasoning = min(wanted.reasoning, wanted.most or wanted.reasoning)
    room = None if wanted.most is None else wanted.most - reasoning
    told = plan.output_tokens if room is None else min(plan.output_tokens, room)
    calls: list[ToolCall] = []
    if plan.refuses or plan.filtered:
        texts, ending, stopped_by = [REFUSAL], Ending.FILTERED if plan.filtered else Ending.REFUSAL, None
    elif names := wanted.tools.chosen():
        calls = [_call(name, wanted.tools.offered[name], plan, number) for number, name in enumerate(names)]
        texts, ending, stopped_by = [""], Ending.CALLS, None
    else:
        texts, ending, stopped_by = _texts(wanted, plan, told)
    spent = told if ending is not Ending.SEQUENCE else tokens_of(texts[0])
    if plan.text is not None and ending is Ending.STOP:
        spent = tokens_of(plan.text)
    output = spent * len(texts) + reasoning if wanted.generates else 0
    return Answer(
        plan=plan,
        wanted=wanted,
        texts=texts,
        calls=calls,
        thought=samples.text(reasoning, samples.THOUGHTS) if reasoning else "",
        ending=ending,
        stopped_by=stopped_by,
        prompt_tokens=tokens_of(wanted.prompt),
        output_tokens=output,
        reasoning_tokens=reasoning,
    )


def _call(name: str, schema: Mapping[str, Any], plan: Plan, number: int) -> ToolCall:
    arguments = samples.fitting({"type": "object", **schema})
    return ToolCall(f"{plan.identity[:22]}{number:02d}", name, arguments if isinstance(arguments, dict) else {})


def _texts(wanted: Wanted, plan: Plan, told: int) -> tuple[list[str], Ending, str | None]:
    if wanted.schema is not None:
        raw = orjson.dumps(samples.fitting(wanted.schema)).decode()
        return [raw] * wanted.choices, Ending.STOP, None
    if told <= 0:
        return [""] * wanted.choices, Ending.LENGTH, None
    given = plan.text if wanted.text is None else wanted.text
    first = samples.text(told) if given is None else given
    hits = [(first.find(stop), stop) for stop in wanted.stop if stop in first]
    ending, stopped_by = Ending.LENGTH if given is None and told < plan.output_tokens else Ending.STOP, None
    if hits:
        at, stopped_by = min(hits)
        first, ending = first[:at], Ending.SEQUENCE
    others = [samples.text(told, skip=number) if given is None else first for number in range(1, wanted.choices)]
    return [first, *others], ending, stopped_by
