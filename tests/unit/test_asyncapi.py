"""The AsyncAPI document: its structure, and that it tells the truth about topics and headers."""

import re
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
import yaml
from click.testing import CliRunner

from broker.asyncapi import MESSAGES, document
from broker.cli.asyncapi import command
from broker.envelope import NewRequest, encode_again, encode_chunk, encode_request, open_record
from broker.envelope import headers as h
from broker.envelope.dead import dead_letter
from broker.records import Headers, OutRecord
from broker.topics import Lane, TopicNames, topic_specs

NAMES = TopicNames()
DOCUMENT = document(NAMES, version="1.2.3", aliases=["local", "busy"], bootstrap_servers="a:9092, b:9092")

Json = dict[str, Any]


@dataclass(frozen=True)
class Read:
    """A record as a log would return it."""

    topic: str = "llm.requests.local"
    partition: int = 0
    offset: int = 0
    timestamp: int = 1_700_000_000_000
    key: bytes | None = None
    value: bytes | None = b'{"messages": [{"role": "user", "content": "hi"}]}'
    headers: Headers = ()


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for child in node.values() for found in references(child)]
    if isinstance(node, list):
        return [found for child in node for found in references(child)]
    return []


def resolved(pointer: str) -> Json:
    node: Any = DOCUMENT
    for part in pointer.removeprefix("#/").split("/"):
        node = node[part]
    while "$ref" in node and isinstance(node["$ref"], str):
        node = resolved(node["$ref"])
    found: Json = node
    return found


def described(message: str) -> set[str]:
    return set(DOCUMENT["components"]["messages"][message]["headers"]["properties"])


def required(message: str) -> set[str]:
    return set(DOCUMENT["components"]["messages"][message]["headers"].get("required", ()))


def test_every_reference_leads_somewhere() -> None:
    assert references(DOCUMENT)
    for pointer in references(DOCUMENT):
        assert resolved(pointer), pointer


def test_the_document_has_the_parts_the_specification_asks_for() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
    assert DOCUMENT["servers"]["kafka1"] == {"host": "b:9092", "protocol": "kafka"}
    for key in (*DOCUMENT["channels"], *DOCUMENT["operations"], *DOCUMENT["components"]["messages"]):
        assert re.fullmatch(r"[A-Za-z0-9._-]+", key), key


@pytest.mark.parametrize("name", DOCUMENT["operations"])
def test_an_operation_uses_messages_of_its_own_channel(name: str) -> None:
    operation = DOCUMENT["operations"][name]
    assert operation["action"] in {"send", "receive"}
    channel = operation["channel"]["$ref"]
    assert operation["messages"]
    assert [ref["$ref"] for ref in operation["messages"] if not ref["$ref"].startswith(f"{channel}/messages/")] == []


def test_a_reply_goes_where_the_request_s_header_says() -> None:
    for name in ("receiveRequest", "receiveBatchRequest"):
        reply = DOCUMENT["operations"][name]["reply"]
        assert reply["address"]["location"] == "$message.header#/reply-to"
        # The specification: beside a reply address, the reply's channel has none of its own.
        assert resolved(reply["channel"]["$ref"])["address"] is None


@pytest.mark.parametrize("name", [name for name, channel in DOCUMENT["channels"].items() if channel["address"]])
def test_a_channel_s_parameters_are_those_in_its_address(name: str) -> None:
    channel = DOCUMENT["channels"][name]
    assert set(re.findall(r"\{(\w+)\}", channel["address"])) == set(channel.get("parameters", {}))


def test_every_topic_is_a_channel_with_its_partitions() -> None:
    addresses = {
        channel["address"].replace("{alias}", "local"): channel["bindings"]["kafka"]["partitions"]
        for channel in DOCUMENT["channels"].values()
        if channel["address"]
    }
    assert addresses == {spec.name: spec.partitions for spec in topic_specs(NAMES, ["local"])}


def test_the_alias_parameter_lists_the_aliases() -> None:
    assert DOCUMENT["channels"]["requests"]["parameters"]["alias"]["enum"] == ["busy", "local"]
    assert "enum" not in document(NAMES, version="1")["channels"]["requests"]["parameters"]["alias"]


def test_every_message_is_used_and_described() -> None:
    used = {name for channel in DOCUMENT["channels"].values() for name in channel["messages"]}
    assert used == {message.name for message in MESSAGES} == set(DOCUMENT["components"]["messages"])
    for message in DOCUMENT["components"]["messages"].values():
        assert message["summary"].endswith(".")
        assert all(schema["description"] for schema in message["headers"]["properties"].values())


def test_every_header_the_code_knows_is_described() -> None:
    known = {value for name, value in vars(h).items() if name.isupper() and isinstance(value, str)}
    assert known == {header for message in MESSAGES for header in message.headers}


def names_of(record: OutRecord) -> set[str]:
    return {name for name, _ in record.headers}


def test_a_request_as_a_client_writes_it_is_as_described() -> None:
    request = NewRequest(
        alias="local", body=b"{}", request_id="r", endpoint="/v1/embeddings", reply_to="llm.replies", reply_partition=3,
        key="k", deadline=1, priority=2, idempotency_key="i", tags={"a": "b"}, metadata=b"{}", traceparent="t",
    )  # fmt: skip
    assert names_of(encode_request(request, NAMES)) <= described("request")


def test_what_the_broker_writes_is_as_described() -> None:
    record = Read(headers=[("request-id", b"r"), ("reply-to", b"llm.replies")])
    job = open_record(
        record, alias="local", lane=Lane.BATCH, replies_topic=NAMES.replies, secret=b"s", max_body_bytes=1000
    )
    parked = encode_again(job, "llm.delay.30s", secret=b"s", visited=(), not_before=1, target="llm.requests.local")
    assert required("parkedRequest") <= names_of(parked) <= described("parkedRequest")
    rerouted = encode_again(job, "llm.requests.busy", secret=b"s", visited=("local",))
    assert names_of(rerouted) <= described("request")
    chunk = encode_chunk(job, seq=0, attempt=1, value=b"{}")
    assert required("chunk") <= names_of(chunk) <= described("chunk")
    letter = dead_letter(record, "why", "invalid_request", 1, NAMES.dead)
    assert required("deadLetter") <= names_of(letter) <= described("deadLetter")


def test_money_in_a_usage_event_is_a_text() -> None:
    cost = DOCUMENT["components"]["schemas"]["UsageEvent"]["properties"]["cost"]
    assert [option["type"] for option in cost["anyOf"]] == ["string", "null"]


def test_the_command_prints_the_same_document_as_yaml_and_as_json() -> None:
    as_yaml = CliRunner().invoke(command, [], catch_exceptions=False)
    as_json = CliRunner().invoke(command, ["--json"], catch_exceptions=False)
    assert (as_yaml.exit_code, as_json.exit_code) == (0, 0)
    assert yaml.safe_load(as_yaml.output) == orjson.loads(as_json.output)
    assert "&id" not in as_yaml.output
