import base64

import pytest

from broker.delivery.tracker import (
    MAX_METADATA,
    MAX_WINDOW,
    WINDOW,
    PartitionTracker,
    Position,
    decode_done,
    encode_done,
)


def received(*offsets: int, commit: Position | None = None) -> PartitionTracker:
    tracker = PartitionTracker(commit)
    for offset in offsets:
        assert tracker.receive(offset)
    return tracker


def finish(tracker: PartitionTracker, *offsets: int) -> None:
    for offset in offsets:
        tracker.finish(offset, tracker.epoch)


def commit(tracker: PartitionTracker) -> Position:
    position = tracker.pending()
    assert position is not None
    tracker.committed(position)
    return position


def test_the_commit_is_the_lowest_unfinished_offset_and_names_what_is_done_above_it() -> None:
    tracker = received(10, 11, 12, 13)
    finish(tracker, 11, 13)
    position = commit(tracker)
    assert (position.offset, decode_done(*position)) == (10, {11, 13})


def test_the_commit_follows_when_the_head_finishes() -> None:
    tracker = received(10, 11, 12, 13)
    finish(tracker, 11, 10)
    assert commit(tracker) == Position(12, "")


def test_all_done_commits_the_offset_after_the_last_one() -> None:
    tracker = received(10, 11)
    finish(tracker, 10, 11)
    assert commit(tracker) == Position(12, "")


def test_gaps_between_received_offsets_count_as_done() -> None:
    tracker = received(10, 50, 90)
    finish(tracker, 10)
    assert commit(tracker) == Position(50, "")


def test_nothing_is_pending_before_something_finished() -> None:
    assert received(10, 11).pending() is None


def test_nothing_is_pending_after_the_acknowledgement() -> None:
    tracker = received(10)
    finish(tracker, 10)
    commit(tracker)
    assert tracker.pending() is None


def test_a_position_without_an_acknowledgement_stays_pending() -> None:
    tracker = received(10)
    finish(tracker, 10)
    assert tracker.pending() == tracker.pending() == Position(11, "")


def test_a_failed_commit_is_made_again() -> None:
    tracker = received(10)
    finish(tracker, 10)
    commit(tracker)
    tracker.dirty()
    assert tracker.pending() == Position(11, "")


def test_a_late_acknowledgement_of_a_lower_position_makes_the_higher_one_pending_again() -> None:
    tracker = received(10, 11)
    finish(tracker, 10)
    first = tracker.pending()
    assert first is not None
    finish(tracker, 11)
    second = commit(tracker)
    tracker.committed(first)
    assert tracker.pending() == second


def test_an_acknowledgement_of_an_older_offer_leaves_the_younger_one_pending() -> None:
    tracker = received(10, 11)
    finish(tracker, 10)
    first = tracker.pending()
    assert first is not None
    finish(tracker, 11)
    second = tracker.pending()
    tracker.committed(first)
    assert tracker.pending() == second


def test_a_kept_partition_is_not_run_twice_after_a_rebalance() -> None:
    tracker = received(10, 11, 12)
    finish(tracker, 11)
    position = commit(tracker)
    assert tracker.adopt(position)
    assert [tracker.receive(offset) for offset in (10, 11, 12, 13)] == [False, False, False, True]


def test_work_that_ran_through_a_rebalance_of_a_kept_partition_still_counts() -> None:
    tracker = received(10, 11)
    finish(tracker, 10)
    epoch = tracker.epoch
    assert tracker.adopt(commit(tracker))
    tracker.finish(11, epoch)
    assert commit(tracker) == Position(12, "")


def test_a_partition_never_committed_by_anyone_is_kept() -> None:
    tracker = received(10, 11)
    assert tracker.adopt(None)
    assert not tracker.receive(10)


def test_a_commit_whose_acknowledgement_was_lost_is_recognised_as_ours() -> None:
    tracker = received(10, 11)
    finish(tracker, 10)
    offered = tracker.pending()
    tracker.dirty()
    assert tracker.adopt(offered)
    assert tracker.epoch == 0
    assert tracker.pending() is None


def test_a_commit_that_never_arrived_is_offered_again_after_the_rebalance() -> None:
    tracker = received(10, 11)
    finish(tracker, 10)
    before = commit(tracker)
    finish(tracker, 11)
    offered = tracker.pending()
    assert tracker.adopt(before)
    assert tracker.pending() == offered


def test_a_position_of_another_owner_rebuilds_the_state_under_a_new_epoch() -> None:
    tracker = received(10, 11, 12)
    theirs = Position(11, encode_done(11, {12}))
    assert not tracker.adopt(theirs)
    assert tracker.epoch == 1
    assert [tracker.receive(offset) for offset in (11, 12, 13)] == [True, False, True]


def test_the_same_offset_with_another_done_set_is_another_owners() -> None:
    tracker = received(10, 11, 12)
    finish(tracker, 12)
    commit(tracker)
    assert not tracker.adopt(Position(10, encode_done(10, {11})))


def test_a_deleted_topics_successor_is_read_from_its_start() -> None:
    tracker = received(100, 101)
    finish(tracker, 100, 101)
    commit(tracker)
    assert not tracker.adopt(None)
    assert tracker.receive(0)


def test_work_of_an_old_epoch_never_moves_the_commit() -> None:
    tracker = received(10, 11)
    tracker.adopt(Position(10, ""))
    assert tracker.receive(10)
    tracker.finish(10, 0)
    assert (tracker.in_flight, tracker.pending()) == (1, None)


def test_restored_offsets_stay_in_the_metadata_before_they_are_read_again() -> None:
    tracker = PartitionTracker(Position(10, encode_done(10, {12, 14})))
    assert tracker.receive(10)
    assert tracker.receive(11)
    finish(tracker, 10)
    position = commit(tracker)
    assert (position.offset, decode_done(*position)) == (11, {12, 14})


def test_restored_offsets_join_the_contiguous_part_when_they_are_read_again() -> None:
    tracker = PartitionTracker(Position(10, encode_done(10, {11, 12})))
    assert [tracker.receive(offset) for offset in (10, 11, 12)] == [True, False, False]
    finish(tracker, 10)
    assert commit(tracker) == Position(13, "")


def test_a_restored_tail_moves_the_commit_when_it_is_read_again() -> None:
    tracker = PartitionTracker(Position(10, encode_done(10, {11})))
    assert tracker.receive(10)
    finish(tracker, 10)
    assert commit(tracker) == Position(11, encode_done(11, {11}))
    assert not tracker.receive(11)
    assert commit(tracker) == Position(12, "")


def test_an_offset_found_late_inside_a_gap_is_run_and_holds_the_commit() -> None:
    tracker = received(10, 12)
    finish(tracker, 12)
    assert tracker.receive(11)
    finish(tracker, 10)
    position = commit(tracker)
    assert (position.offset, decode_done(*position)) == (11, {12})


def test_unknown_and_repeated_offsets_are_ignored() -> None:
    tracker = received(10, 11)
    finish(tracker, 99, 10, 10, 3)
    assert (tracker.in_flight, commit(tracker)) == (1, Position(11, ""))


def test_room_is_counted_from_the_lowest_unfinished_offset() -> None:
    tracker = PartitionTracker(window=4)
    assert tracker.room == 4
    for offset in (10, 11, 13):
        tracker.receive(offset)
    assert tracker.room == 0
    finish(tracker, 11, 13)
    assert tracker.room == 0
    finish(tracker, 10)
    assert tracker.room == 4


def test_in_flight_and_oldest_follow_the_work() -> None:
    tracker = received(10, 11, 12)
    assert (tracker.in_flight, tracker.oldest) == (3, 10)
    finish(tracker, 10, 12)
    assert (tracker.in_flight, tracker.oldest) == (1, 11)
    finish(tracker, 11)
    assert (tracker.in_flight, tracker.oldest) == (0, None)


def test_a_full_window_fits_into_kafkas_metadata() -> None:
    full = encode_done(0, range(WINDOW))
    assert len(full) == 1369
    assert len(encode_done(0, range(MAX_WINDOW), MAX_WINDOW)) <= MAX_METADATA


def test_offsets_beyond_the_window_are_left_out_of_the_metadata() -> None:
    assert decode_done(5, encode_done(5, {4, 6, 5 + WINDOW})) == {6}


@pytest.mark.parametrize("window", [0, -1, MAX_WINDOW + 1])
def test_a_window_that_does_not_fit_is_refused(window: int) -> None:
    with pytest.raises(ValueError, match="window is 1"):
        PartitionTracker(window=window)


@pytest.mark.parametrize(
    "metadata",
    ["", "no", "A", "Aé", "A===", "A!!!!", "Aabc", "B" + base64.b64encode(b"\xff").decode(), "A" * (MAX_METADATA + 1)],
)
def test_undecodable_metadata_is_an_empty_set(metadata: str) -> None:
    assert decode_done(7, metadata) == set()
    assert PartitionTracker(Position(7, metadata)).receive(8)
