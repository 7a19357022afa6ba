"""Every error aiokafka can raise has a meaning here."""

from collections.abc import Iterator

import pytest
from aiokafka import errors

from broker.adapters.kafka_errors import (
    CLIENT_ERRORS,
    PERMANENT,
    TRANSIENT,
    failure,
    is_permanent,
    is_unreadable,
    unavailable,
)
from broker.ports import SendFailure


def kafka_errors(root: type[Exception] = errors.KafkaError) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from kafka_errors(child)


def test_every_error_of_aiokafka_is_either_permanent_or_transient() -> None:
    assert {kind.__name__ for kind in kafka_errors()} == {kind.__name__ for kind in (*PERMANENT, *TRANSIENT)}
    assert set(PERMANENT) & set(TRANSIENT) == set()


def test_every_error_of_aiokafka_is_caught_at_the_edge() -> None:
    raised = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert [kind for kind in raised if not issubclass(kind, CLIENT_ERRORS)] == []


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (errors.MessageSizeTooLargeError(), True),
        (errors.RecordListTooLargeError(), True),
        (errors.UnknownTopicOrPartitionError(), True),
        (errors.TopicAuthorizationFailedError("x"), True),
        (errors.NotLeaderForPartitionError(), False),
        (errors.NotEnoughReplicasError(), False),
        (errors.UnknownError(), False),
        (OSError("reset"), False),
    ],
)
def test_a_failed_record_says_whether_it_will_ever_be_accepted(error: Exception, *, permanent: bool) -> None:
    assert is_permanent(error) is permanent
    assert failure(error) == SendFailure(str(error), permanent=permanent)


def test_an_unavailable_log_is_named_with_its_address_and_the_reason_on_one_line() -> None:
    error = unavailable(errors.CommitFailedError(), "commit", ["a:1", "b:2"])
    assert str(error).startswith("Kafka at a:1, b:2: commit: CommitFailedError: ")
    assert "\n" not in str(error)
    assert str(unavailable(TimeoutError(), "connect", ["a:1"])) == "Kafka at a:1: connect: no answer in time"


def test_what_the_bytes_are_to_blame_for_is_told_from_what_the_way_to_them_is() -> None:
    blamed = [
        errors.CorruptRecordException(),
        errors.UnsupportedCodecError(),
        UnicodeDecodeError("utf-8", b"", 0, 1, ""),
    ]
    assert [is_unreadable(error) for error in blamed] == [True, True, True]
    others = [errors.TopicAuthorizationFailedError(), errors.ConsumerStoppedError(), OSError(), errors.KafkaError()]
    assert [is_unreadable(error) for error in others] == [False] * 4
