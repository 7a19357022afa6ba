"""The tracker against a model of a partition, its group's commit, other owners and crashes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.delivery.tracker import (
    MAX_METADATA,
    MAX_WINDOW,
    PartitionTracker,
    Position,
    decode_done,
    encode_done,
)


@settings(deadline=None)
@given(base=st.integers(0, 2**62), places=st.sets(st.integers(0, 8191)))
def test_the_done_set_survives_being_written_and_read(base: int, places: set[int]) -> None:
    done = {base + place for place in places}
    assert decode_done(base, encode_done(base, done)) == done


@settings(deadline=None)
@given(window=st.integers(1, MAX_WINDOW), data=st.data())
def test_metadata_never_exceeds_kafkas_limit(window: int, data: st.DataObject) -> None:
    done = data.draw(st.sets(st.integers(0, 2 * window), max_size=50)) | {window - 1}
    assert len(encode_done(0, done, window).encode()) <= MAX_METADATA


@settings(deadline=None)
@given(metadata=st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: "A" + raw.decode("latin-1")))
def test_no_metadata_can_break_the_tracker(metadata: str) -> None:
    tracker = PartitionTracker(Position(5, metadata))
    started = [offset for offset in range(5, 40) if tracker.receive(offset)]
    for offset in started:
        tracker.finish(offset, tracker.epoch)
    assert tracker.oldest is None


class Partition(RuleBasedStateMachine):
    """One member's tracker on a log with gaps; the broker's commit is the only thing a crash leaves."""

    @initialize(gaps=st.lists(st.integers(1, 3), min_size=1, max_size=60), window=st.sampled_from([3, 8, 8192]))
    def begin(self, gaps: list[int], window: int) -> None:
        self.log = [sum(gaps[: index + 1]) for index in range(len(gaps))]
        self.window = window
        self.stored: Position | None = None
        self.completed: set[int] = set()
        self.start_process()

    def start_process(self) -> None:
        self.tracker = PartitionTracker(self.stored, self.window)
        self.running: set[tuple[int, int]] = set()
        self.started: set[tuple[int, int]] = set()
        self.offered = -1
        self.rewind()

    def rewind(self) -> None:
        self.position = self.stored.offset if self.stored else 0

    def read_one(self) -> bool:
        offset = next((offset for offset in self.log if offset >= self.position), None)
        if offset is None:
            return False
        self.position = offset + 1
        if self.tracker.receive(offset):
            work = (offset, self.tracker.epoch)
            assert work not in self.started, "the same record was started twice in one epoch"
            self.started.add(work)
            self.running.add(work)
        return True

    def end(self, work: tuple[int, int]) -> None:
        self.running.remove(work)
        self.completed.add(work[0])
        self.tracker.finish(*work)

    def offer(self) -> Position | None:
        position = self.tracker.pending()
        if position is not None:
            assert position.offset >= self.offered, "the commit went backwards"
            self.offered = position.offset
        return position

    @rule(count=st.integers(1, 6))
    def read(self, count: int) -> None:
        for _ in range(min(count, self.tracker.room)):
            self.read_one()

    @rule()
    def read_past_the_window(self) -> None:
        self.read_one()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(sorted(self.running))))

    @rule()
    def commit(self) -> None:
        position = self.offer()
        if position is not None:
            self.stored = position
            self.tracker.committed(position)
            assert self.tracker.pending() is None

    @rule(arrived=st.booleans())
    def commit_without_an_answer(self, arrived: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        position = self.offer()
        if position is not None:
            self.stored = position if arrived else self.stored
            self.tracker.dirty()

    @rule()
    def rebalance_and_keep(self) -> None:
        epoch = self.tracker.epoch
        assert self.tracker.adopt(self.stored)
        assert self.tracker.epoch == epoch
        self.rewind()

    @rule(data=st.data())
    def rebalance_through_another_owner(self, data: st.DataObject) -> None:
        other = PartitionTracker(self.stored, self.window)
        mine = [offset for offset in self.log if other.receive(offset)]
        for offset in data.draw(st.permutations(mine))[: data.draw(st.integers(0, len(mine)))]:
            other.finish(offset, other.epoch)
            self.completed.add(offset)
        self.stored = other.pending() or self.stored
        if not self.tracker.adopt(self.stored):
            self.offered = -1
        self.rewind()

    @rule()
    def crash(self) -> None:
        self.start_process()

    @invariant()
    def nothing_unfinished_is_ever_skipped(self) -> None:
        if self.stored is None:
            return
        skipped = {offset for offset in self.log if offset < self.stored.offset} | decode_done(*self.stored)
        assert skipped & set(self.log) <= self.completed

    @invariant()
    def room_and_in_flight_are_never_negative(self) -> None:
        assert self.tracker.room >= 0
        assert 0 <= self.tracker.in_flight <= len(self.log)

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        while self.read_one():
            pass
        for work in sorted(self.running):
            self.end(work)
        self.commit()
        assert self.completed == set(self.log)
        assert self.tracker.oldest is None
        assert self.stored is not None
        assert (self.stored.offset, self.stored.metadata) == (self.log[-1] + 1, "")


TestPartition = Partition.TestCase
TestPartition.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
