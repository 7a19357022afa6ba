"""Every dialect against its golden files: requests out; answers, streams and errors in."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from broker import errors
from broker.errors import RequestError, UpstreamError
from tests.golden.cases import cases, dialect_of, folders, masked, stream_of, target
from workers.providers.base import Usage

NOW = 1_700_000_000.0
PIECES = (1, 7, 1000, 1 << 20)
"""Sizes a stream is cut into: what comes out does not depend on it."""


def raw(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def test_every_dialect_with_a_wire_format_of_its_own_has_golden_files() -> None:
    assert {"anthropic", "azure", "bedrock", "openai_api", "cohere", "gemini", "rerank", "vertex"} <= set(folders())


@pytest.mark.parametrize(("folder", "case"), cases("requests"))
def test_a_request_goes_out_as_recorded(folder: str, case: dict[str, Any]) -> None:
    del folder
    resolved = target(case["deployment"])
    before = json.dumps(case["body"])
    out = dialect_of(resolved).outbound(resolved, case["endpoint"], case["body"], streams=case["streams"])
    assert json.loads(out.body) == case["sent"]
    assert out.url == case["url"]
    assert dict(out.headers) == case.get("headers", {})
    assert json.dumps(case["body"]) == before


@pytest.mark.parametrize(("folder", "case"), cases("answers"))
def test_an_answer_is_read_as_recorded(folder: str, case: dict[str, Any]) -> None:
    del folder
    resolved = target(case["deployment"])
    found = dialect_of(resolved).answer(
        resolved, case["endpoint"], case["asked"], raw(case["answer"]), case.get("headers", {})
    )
    assert masked(json.loads(found.body), case["body"]) == case["body"]
    counted = {name: value for name, value in asdict(found.usage).items() if value and name not in {"raw", "units"}}
    if found.usage.units is not None:
        counted["units"] = found.usage.units.told()
    assert counted == case["usage"]
    assert (found.model, found.service_tier, found.stated_cost) == (case["model"], case.get("tier"), case.get("cost"))


@pytest.mark.parametrize("size", PIECES)
@pytest.mark.parametrize(("folder", "case"), cases("streams"))
def test_a_stream_is_read_as_recorded(folder: str, case: dict[str, Any], size: int) -> None:
    resolved = target(case["deployment"])
    stream = dialect_of(resolved).stream(resolved, case["endpoint"], case["asked"])
    whole, chunks = stream_of(folder, case["stream"]), []
    for start in range(0, len(whole), size):
        chunks += [json.loads(chunk) for chunk, _ in stream.feed(whole[start : start + size])]
    assert masked(chunks, case["chunks"]) == case["chunks"]
    assert masked(stream.body(), case["body"]) == case["body"]


@pytest.mark.parametrize(("folder", "case"), cases("errors"))
def test_a_documented_error_is_read_as_recorded(folder: str, case: dict[str, Any]) -> None:
    dialect = dialect_of(target(case.get("deployment") or {"provider": folder, "model": "m"}))
    found = dialect.error(case["status"], case["headers"], raw(case["text"] if "text" in case else case["body"]), NOW)
    assert isinstance(found, RequestError)
    assert type(found) is getattr(errors, case["error"])
    told = {"status": found.status, **found.body()["error"], "retry_after": found.retry_after}
    assert {name: value for name, value in told.items() if value is not None} == case["reply"]
    assert isinstance(found, UpstreamError) or found.retry_after is None


def test_usage_fields_of_the_golden_files_are_those_of_usage() -> None:
    names = {name for case in cases("answers") for name in case.values[1]["usage"]}
    assert names <= set(Usage.__dataclass_fields__)
