"""Which offsets of a partition are done, and the position that says so. Pure state; imports nothing of ours."""

import base64
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

WINDOW: Final = 8192
"""Offsets above the commit that the metadata can tell apart: a bitset of 1 KiB, 1,369 characters of metadata."""

MAX_METADATA: Final = 4096
"""Bytes Kafka accepts as a commit's metadata (`offset.metadata.max.bytes`)."""

MAX_WINDOW: Final = (MAX_METADATA - 1) // 4 * 3 * 8
"""The largest window whose bitset still fits into the metadata."""

REMEMBERED_OFFERS: Final = 4
"""Positions that were handed out without an answer and may be in the log all the same."""

_VERSION: Final = "A"
_ONE: Final = ord("1")


class Position(NamedTuple):
    """A position of one partition: every offset below `offset` is done; `metadata` tells which ones above it are."""

    offset: int
    metadata: str


def encode_done(base: int, done: Iterable[int], window: int = WINDOW) -> str:
    """Write the offsets `done` in `base` … `base + window - 1` as metadata; offsets outside are left out.

    Format: nothing for an empty set, else the letter `A` and, in base64, a bitset whose bit 0 is `base`, least
    significant bit first, cut after its last set bit. At most `MAX_METADATA` ASCII characters for any legal window.
    """
    digits = bytearray(b"0") * window
    for offset in done:
        place = offset - base
        if 0 <= place < window:
            digits[~place] = _ONE
    bits = int(digits, 2)
    return _VERSION + base64.b64encode(bits.to_bytes((bits.bit_length() + 7) >> 3, "little")).decode() if bits else ""


def decode_done(base: int, metadata: str) -> set[int]:
    """Read what `encode_done` wrote. What cannot be read is an empty set: those records run again, none is lost."""
    if not metadata.startswith(_VERSION) or len(metadata) > MAX_METADATA:
        return set()
    try:
        bits = base64.b64decode(metadata[1:], validate=True)
    except ValueError:
        return set()
    return {base + (index << 3) + bit for index, byte in enumerate(bits) if byte for bit in range(8) if byte >> bit & 1}


class PartitionTracker:
    """The offsets of one partition, from being read to being committed; outlives rebalances (delivery.md).

    Records start in order and finish in any order. Only received offsets are tracked: what lies between two of them
    (compaction, transaction markers) counts as done. Every `receive` that returned True must be followed by `finish`,
    whatever happened in between: a kept partition does not hand the record out a second time.

    Offsets that finish beyond `window` above the lowest unfinished one are tracked but do not fit into the metadata; a
    crash runs them again. `room` is there to not get so far.
    """

    __slots__ = ("_base", "_changed", "_dirty", "_fresh", "_offers", "_order", "_restored", "_saved", "_state",
                 "_unfinished", "_window", "epoch")  # fmt: skip

    def __init__(self, commit: Position | None = None, window: int = WINDOW) -> None:
        """Start at `commit`, the broker's position, or at whatever comes first. Raises ValueError for the window."""
        if not 1 <= window <= MAX_WINDOW:
            raise ValueError(f"window is 1 … {MAX_WINDOW} offsets, not {window}")
        self.epoch = 0
        self._window = window
        self._load(commit)

    def _load(self, position: Position | None) -> None:
        self._saved = position
        self._base = position.offset if position else 0
        self._restored = decode_done(*position) if position else set()
        self._fresh = max(self._restored, default=self._base - 1) + 1  # from here on nothing was seen before
        self._order: deque[int] = deque()  # received, from the lowest unfinished one on, ascending
        self._state: dict[int, bool] = {}  # the same offsets: is it done?
        self._unfinished = 0
        self._changed = False
        self._dirty = False
        self._offers: deque[Position] = deque(maxlen=REMEMBERED_OFFERS)

    def receive(self, offset: int) -> bool:
        """Note a record as read. True: start it. False: it is done or in flight, this is a re-read."""
        if offset < self._fresh:
            return self._receive_again(offset)
        self._fresh = offset + 1
        self._order.append(offset)
        self._state[offset] = False
        self._unfinished += 1
        return True

    def _receive_again(self, offset: int) -> bool:
        if offset < self._base or offset in self._state:
            return False
        done = offset in self._restored
        self._restored.discard(offset)
        self._state[offset] = done
        if self._order and offset < self._order[-1]:
            self._order = deque(sorted(self._state))
        else:
            self._order.append(offset)
        if done:
            self._changed = True
            self._advance()
        else:
            self._unfinished += 1
        return not done

    def finish(self, offset: int, epoch: int) -> None:
        """Mark a record as done. Work of another epoch, unknown offsets and repetitions change nothing."""
        state = self._state
        if epoch != self.epoch or state.get(offset, True):
            return
        state[offset] = True
        self._unfinished -= 1
        self._changed = True
        if self._order[0] == offset:
            self._advance()

    def _advance(self) -> None:
        order, state = self._order, self._state
        while order and state[order[0]]:
            last = order.popleft()
            del state[last]
            self._base = last + 1

    @property
    def room(self) -> int:
        """How many more offsets may be received before the window above the lowest unfinished one is full."""
        order = self._order
        return max(0, self._window - (order[-1] + 1 - order[0])) if order else self._window

    @property
    def in_flight(self) -> int:
        """Records received and not finished."""
        return self._unfinished

    @property
    def oldest(self) -> int | None:
        """The lowest unfinished received offset; None when everything is done."""
        return self._order[0] if self._order else None

    def pending(self) -> Position | None:
        """Return the position to commit; None when nothing changed since the last `committed`."""
        if not self._changed and not self._dirty and not self._offers:
            return None
        position = self._position()
        self._changed = False
        if position == self._saved and not self._dirty:
            self._offers.clear()
            return None
        if position not in self._offers:
            self._offers.append(position)
        return position

    def _position(self) -> Position:
        if self._order:
            self._base = self._order[0]
        base = self._base
        if self._restored:
            self._restored = {offset for offset in self._restored if offset >= base}
        done = [offset for offset, is_done in self._state.items() if is_done]
        done += self._restored
        return Position(base, encode_done(base, done, self._window))

    def committed(self, position: Position) -> None:
        """Take note that the broker has acknowledged `position`.

        An acknowledgement lower than an earlier one is late or means that the broker went back: it is committed again.
        """
        if self._saved is not None and position.offset < self._saved.offset:
            self._dirty = True
            return
        self._saved = position
        self._dirty = False
        while self._offers and self._offers.popleft() != position:
            pass  # older offers were overtaken, younger ones still wait for their answer

    def dirty(self) -> None:
        """Commit again, even if nothing changes: the last commit failed and what is stored is unknown."""
        self._dirty = True

    def adopt(self, position: Position | None) -> bool:
        """Take the partition over after an assignment that found `position` committed. True: the state was kept.

        Kept when the position is ours: the last one acknowledged (none, when we never had one), or one we offered whose
        acknowledgement was lost. Nobody else has worked on the partition then, and the re-read from the commit meets
        `receive` returning False. Everything else is rebuilt from the position under a new epoch, so that work already
        running may publish but never commits. That includes a position that is gone or older than ours: deleting a
        topic deletes its commits, and the offsets of its successor are other records.
        """
        if position == self._saved or position in self._offers:
            self._saved = position
            self._changed = True  # offers that did not reach the broker are made again
            self._dirty = False
            self._offers.clear()
            return True
        self.epoch += 1
        self._load(position)
        return False
