"""Every status and code of the wire contract's table that a caller can meet, on a real log and a real Redis."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from broker.config import Alias, Prices, Settings, VirtualKey
from broker.embedded.probe import free_port
from broker.envelope import Reply
from tests.serving import Caller, alias, calling, make_topics, settings_of, working
from tests.upstream import Drop, Hang, Html, Status, Step, Upstream

pytestmark = pytest.mark.embedded

Ended = tuple[int, str | None, str, int]
"""Status, code (None for an answer), who served, and how many attempts were made."""


def error(message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


LONG = Status(400, body=error("This model's maximum context length is 8192 tokens", "context_length_exceeded"))
UNSAFE = Status(400, body=error("Your request was rejected", "content_policy_violation"))
WRONG = Status(400, body=error("temperature must be at most 2", param="temperature"))


@dataclass(frozen=True)
class Case:
    """What an alias of its own does, and how its request has to end."""

    steps: Sequence[Step]
    ends: Ended
    fields: dict[str, Any] = field(default_factory=dict)
    count: int = 1
    deadline_ms: int | None = None


ONCE = {"num_retries": 0}
CASES = {
    "long": Case([LONG], (400, "context_length_exceeded", "long/0", 1)),
    "long-else": Case([LONG], (200, None, "spare/0", 2), {"context_window_fallbacks": ("spare",)}),
    "long-not-else": Case([LONG], (400, "context_length_exceeded", "long-not-else/0", 1), {"fallbacks": ("spare",)}),
    "unsafe": Case([UNSAFE], (400, "content_policy_violation", "unsafe/0", 1)),
    "unsafe-else": Case([UNSAFE], (200, None, "spare/0", 2), {"content_policy_fallbacks": ("spare",)}),
    "wrong": Case([WRONG], (400, "invalid_request", "wrong/0", 1)),
    "teapot": Case([Status(418)], (418, "upstream_418", "teapot/0", 1)),
    "bad-key": Case([Status(401)], (401, "upstream_401", "bad-key/0", 1)),
    "bad-key-else": Case([Status(401)], (200, None, "spare/0", 2), {"fallbacks": ("spare",)}),
    "bad-key-of-two": Case([Status(401)], (200, None, "bad-key-of-two/?", 2), count=2),
    "no-model-of-two": Case([Status(404)], (200, None, "no-model-of-two/?", 2), ONCE, count=2),
    "slow": Case([Hang()], (408, "upstream_timeout", "slow/0", 1), {**ONCE, "timeout": 0.3}),
    "slow-once": Case([Hang()], (200, None, "slow-once/0", 2), {"num_retries": 1, "timeout": 0.3}),
    "slow-else": Case([Hang()], (200, None, "spare/0", 2), {**ONCE, "timeout": 0.3, "fallbacks": ("spare",)}),
    "conflict": Case([Status(409)], (200, None, "conflict/0", 2)),
    "broken": Case([Status(500)] * 3, (500, "upstream_500", "broken/0", 3)),
    "overloaded": Case([Status(529)], (529, "upstream_529", "overloaded/0", 1), ONCE),
    # A second try 0.5-0.63 s after the first, a third one 1 s later: too late, however soon the first began.
    "busy": Case([Status(429)] * 9, (504, "deadline_exceeded", "busy/0", 2), ONCE, deadline_ms=1_500),
    "page": Case([Html()], (502, "bad_upstream_response", "page/0", 1), ONCE),
    "dropped": Case([Drop()], (502, "upstream_unreachable", "dropped/0", 1), ONCE),
}


def ended(reply: Reply, case: Case) -> Ended:
    code = None if reply.status == 200 else reply.body()["error"]["code"]
    # Which of two deployments is tried first is drawn.
    served_by = reply.served_by[:-1] + "?" if case.count > 1 else reply.served_by
    return reply.status, code, served_by, reply.attempts


def world(bootstrap: str, redis_url: str, prefix: str, up: Upstream, **fields: Any) -> Settings:
    """Settings with an alias for each case; each request of it plays the case's steps."""
    aliases = [alias(name, up.url, count=case.count, **case.fields) for name, case in CASES.items()]
    closed = f"http://127.0.0.1:{free_port()}/v1"
    priced = {"prices": Prices(input_cost_per_token=Decimal("0.01"), output_cost_per_token=Decimal("0.01"))}
    more: list[Alias] = [
        alias("spare", up.url),
        alias("closed", closed, num_retries=0),
        alias("dear", up.url, limits=priced),
    ]
    return settings_of(bootstrap, redis_url, prefix, *aliases, *more, **fields)


async def test_every_way_an_upstream_fails_ends_as_the_contract_says(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        settings = world(kafka_bootstrap, redis_url, unique_prefix, up)
        await make_topics(settings, partitions=1)
        async with calling(settings) as caller, working(settings) as process:
            for name, case in CASES.items():
                up.script_request(name, case.steps)
                left = case.deadline_ms
                deadline = None if left is None else process.parts.clock.now_ms() + left
                await caller.publish(name, request_id=name, deadline=deadline)
            replies = await caller.replies(*CASES)
            unreachable = await caller.ask("closed")
    actual = {name: ended(reply, case) for (name, case), reply in zip(CASES.items(), replies, strict=True)}
    assert actual == {name: case.ends for name, case in CASES.items()}
    assert replies[list(CASES).index("wrong")].body()["error"]["param"] == "temperature"
    assert (
        replies[list(CASES).index("broken")].body()["error"]["attempts"]
        == [{"deployment": "broken/0", "status": 500, "code": "upstream_500"}] * 3
    )
    assert (unreachable.status, unreachable.body()["error"]["code"]) == (502, "upstream_unreachable")


def key(token: str, **fields: Any) -> VirtualKey:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return VirtualKey(**{"hash": digest, "key_id": token, "tenant": "acme", "team": "", **fields})


KEYS = {
    "narrow": key("narrow", aliases=("other",)),
    "blocked": key("blocked", blocked=True),
    "expired": key("expired", expires_ms=1),
    "once": key("once", rpm_limit=1),
    "poor": key("poor", max_budget=Decimal("0.05")),
}
REFUSALS = {
    "narrow": (403, "model_not_allowed"),
    "blocked": (401, "invalid_api_key"),
    "expired": (401, "invalid_api_key"),
    "unknown": (401, "invalid_api_key"),
}


async def refused(caller: Caller, token: str | None, target: str = "spare") -> Reply:
    return await caller.ask(target, key=token)


async def test_every_refusal_of_a_callers_own_key_is_as_the_contract_says(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        keys = {each.hash: each for each in KEYS.values()}
        settings = world(kafka_bootstrap, redis_url, unique_prefix, up, keys=keys, anonymous_tenant=None)
        await make_topics(settings, partitions=1)
        async with calling(settings) as caller, working(settings):
            ends = {token: await refused(caller, token) for token in REFUSALS}
            nobody = await refused(caller, None)
            first, over = [await refused(caller, "once") for _ in range(2)]
            paid, broke = [await refused(caller, "poor", "dear") for _ in range(2)]
    assert {token: (reply.status, reply.body()["error"]["code"]) for token, reply in ends.items()} == REFUSALS
    assert (nobody.status, nobody.body()["error"]["code"]) == (401, "invalid_api_key")
    assert (first.status, over.status, over.body()["error"]["code"]) == (200, 429, "rate_limit_exceeded")
    assert over.retry_after is not None
    assert 50 < over.retry_after <= 60.2
    assert (paid.status, paid.cost) == (200, Decimal("0.12"))
    assert (broke.status, broke.body()["error"]["code"]) == (422, "budget_exceeded")
    assert len(up.calls) == 2
