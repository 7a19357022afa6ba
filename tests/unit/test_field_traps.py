"""The traps that queues in front of models are known for, and the tests that prove we do not fall into them.

A table and nothing more: each trap names tests that exist and run; those without a better home are in `QUEUE_TRAPS`.
"""

import ast
import json
from pathlib import Path
from typing import Any, Final

import pytest

TESTS: Final = Path(__file__).parents[1]
QUEUE_TRAPS: Final = "unit/workers/test_queue_traps.py"
SKIPS: Final = frozenset({"skip", "skipif", "xfail", "importorskip"})

TRAPS: Final[dict[str, tuple[str, ...]]] = {
    "non-JSON upstream bodies: a web page or an event stream becomes an empty, acknowledged reply": (
        (
            "integration/worker/test_serving_requests.py::"
            "test_an_answer_that_is_not_the_contract_is_a_502_attempt_and_retried_elsewhere"
        ),
        "unit/providers/test_provider_client.py::test_what_is_not_the_contract_is_a_502",
    ),
    "a slow head record pinning the offset": (
        "integration/worker/test_serving_requests.py::test_a_slow_record_does_not_hold_the_others_and_pins_the_commit",
        (
            "unit/delivery/test_tracker.py::"
            "test_the_commit_is_the_lowest_unfinished_offset_and_names_what_is_done_above_it"
        ),
    ),
    "a reservation that leaks on retry and freezes a queue": (
        f"{QUEUE_TRAPS}::test_no_reservation_leaks_on_retry_and_freezes_a_queue",
        "contract/callers/test_exactness.py::test_the_places_of_a_crashed_worker_return_and_those_renewed_stay",
    ),
    "a TTL set only on first acquire": (
        f"{QUEUE_TRAPS}::test_a_ttl_is_not_set_only_on_first_acquire",
        "contract/journal/test_leases.py::test_a_lease_that_is_renewed_does_not_expire",
        "contract/callers/test_exactness.py::test_the_places_of_a_crashed_worker_return_and_those_renewed_stay",
    ),
    "a counter that can never rise": (
        "contract/limits/test_limit_store.py::test_overload_halves_the_concurrency_and_health_brings_it_back",
    ),
    "an acknowledgement before the row is durable": (
        "unit/sinks/test_sink.py::test_a_table_that_is_away_is_told_by_ready_and_nothing_is_committed",
        "unit/sinks/test_sink.py::test_nothing_is_lost_when_the_process_is_killed",
        (
            "unit/workers/test_worker_on_twins.py::"
            "test_while_the_journal_is_away_nothing_is_replied_or_committed_and_then_everything_is"
        ),
        "integration/relay/test_relay.py::test_nothing_is_committed_before_the_log_has_acknowledged_it",
    ),
    "rows keyed by mutable columns": (
        f"{QUEUE_TRAPS}::test_no_rows_are_keyed_by_mutable_columns",
        "contract/ledger/test_ledger.py::test_an_identical_batch_written_twice_counts_once",
    ),
    "`custom_id` taken for an idempotency key": (f"{QUEUE_TRAPS}::test_no_custom_id_is_taken_for_an_idempotency_key",),
    "sleeping after the last retry": (
        "unit/delivery/test_retry.py::test_spent_retries_reroute_without_a_wait",
        "unit/delivery/test_retry.py::test_spent_retries_without_a_fallback_reply_the_upstreams_last_error",
    ),
    "`priority` forwarded upstream": ("unit/providers/test_openai_dialect.py::test_a_request_goes_out_as_recorded",),
    "`error.code` must be a string in the OpenAI body": (
        "unit/providers/test_openai_dialect.py::test_an_error_is_read_as_recorded",
    ),
    "accepted work lost on SIGKILL": (
        "e2e/test_worker_process.py::test_sigkill_loses_nothing_and_repeats_only_what_was_in_flight",
        "unit/workers/test_request_lifecycle.py::test_every_request_ends_once_whatever_dies_between_two_steps",
    ),
    "batches die with their replica": (
        "integration/client/test_submit_on_kafka.py::test_a_job_that_was_killed_is_completed_without_a_line_twice",
    ),
    "a batch of rows dropped after three tries, offsets moved past it": (
        "unit/sinks/test_sink.py::test_the_identical_batch_is_tried_until_the_table_takes_it",
        "unit/sinks/test_sink.py::test_it_resumes_from_the_table_and_not_from_the_group_s_commit",
    ),
    "limits in fixed windows": (
        "unit/limits/test_buckets.py::test_no_sixty_seconds_ever_hold_more_than_the_limit",
        (
            "contract/callers/test_exactness.py::"
            "test_no_stretch_of_a_minute_holds_more_than_the_limit_and_the_wait_that_is_told_is_enough"
        ),
    ),
    "a reject in one scope burns the others": (
        "contract/callers/test_callers.py::test_a_refusal_in_one_scope_burns_nothing_in_another",
    ),
    "limits per process and not global": (
        "contract/limits/test_limit_store.py::test_slots_are_shared_by_need_and_never_more_than_there_are",
        "contract/limits/test_limit_store.py::test_a_slice_is_given_whole_and_counts_at_once_for_all",
        "unit/workers/test_callers.py::test_over_two_workers_a_key_has_its_limit_once",
    ),
    "no fairness between tenants: one tenant's batch holds up another": (
        f"{QUEUE_TRAPS}::test_no_batch_of_one_tenant_holds_up_another",
    ),
    "a Redis outage fails open": (
        "unit/workers/test_failure_table.py::test_without_the_journal_work_waits_and_ready_tells_and_nothing_is_lost",
        "unit/workers/test_failure_table.py::test_an_alias_that_fails_open_is_served_without_the_journal",
    ),
    "a busy provider is told to the caller instead of waited for": (
        "integration/worker/test_serving_requests.py::test_a_busy_provider_means_waiting_and_not_a_429",
        "unit/routing/test_router.py::test_fifty_jobs_on_five_slots_are_all_served_five_at_a_time",
    ),
    "a redelivered request is called and billed again": (
        (
            "unit/workers/test_failure_table.py::"
            "test_crash_after_complete_before_publish_the_next_owner_publishes_the_stored_outcome"
        ),
        "unit/workers/test_worker_on_twins.py::test_a_kept_partition_is_not_run_twice_after_a_rebalance",
        "e2e/test_five_thousand.py::test_of_five_thousand_requests_none_is_lost_none_is_doubled_and_each_has_one_row",
    ),
    "poison that holds up or loses what stands behind it": (
        "integration/worker/test_bad_input.py::test_poison_between_two_good_requests_is_replied_and_dead_lettered",
        "unit/workers/test_failure_table.py::test_a_request_whose_workers_all_die_is_dead_lettered_after_three_starts",
    ),
    "defaults that cap a queue near 10 messages a second": (
        "e2e/test_worker_process.py::test_two_thousand_calls_of_one_second_are_in_flight_at_once_in_one_process",
    ),
}
"""Trap → tests, as path below `tests` and name. Recorded cases hold the traps of the dialect: `golden/openai`."""


def skips(node: ast.AST) -> set[str]:
    """Return the words in a piece of code that keep a test from running, or its failure from being one."""
    names = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    names |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return names & SKIPS


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def marks_of_module(tree: ast.Module) -> list[ast.Assign]:
    return [
        each
        for each in tree.body
        if isinstance(each, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in each.targets)
    ]


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_of_the_field_has_tests_that_exist_and_are_not_skipped(trap: str) -> None:
    for test in TRAPS[trap]:
        path, _, name = test.partition("::")
        tree = ast.parse((TESTS / path).read_text())
        found = functions(tree)
        assert name in found, f"{path} has no test {name}"
        assert skips(found[name]) == set(), test
        assert [mark for mark in marks_of_module(tree) if skips(mark)] == [], path


def test_every_test_of_a_queue_trap_is_named_by_its_trap() -> None:
    tree = ast.parse((TESTS / QUEUE_TRAPS).read_text())
    named = {test.partition("::")[2] for tests in TRAPS.values() for test in tests if test.startswith(QUEUE_TRAPS)}
    assert named == {name for name in functions(tree) if name.startswith("test_")}


@pytest.mark.parametrize(
    "text",
    [
        "@pytest.mark.skip\ndef test_it(): pass",
        "@pytest.mark.skipif(True, reason='x')\nasync def test_it(): pass",
        "@pytest.mark.xfail\ndef test_it(): pass",
        "def test_it():\n    pytest.skip('no')",
    ],
)
def test_a_skipped_test_is_seen(text: str) -> None:
    assert skips(functions(ast.parse(text))["test_it"]) != set()


def test_the_mark_of_a_whole_module_is_seen() -> None:
    (mark,) = marks_of_module(ast.parse("pytestmark = [pytest.mark.embedded, pytest.mark.skip]"))
    assert skips(mark) == {"skip"}


def recorded(name: str) -> list[Any]:
    cases: list[Any] = json.loads((TESTS / "golden" / "openai" / name).read_text())
    return cases


def test_what_is_recorded_of_the_dialect_holds_its_traps() -> None:
    assert any("priority" in case["body"] and "priority" not in case["sent"] for case in recorded("requests.json"))
    told = [case["body"] for case in recorded("errors.json") if isinstance(case.get("body"), dict)]
    assert any(isinstance(body.get("code"), int) for body in told)
