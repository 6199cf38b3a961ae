"""Small records of what happened, in a bounded ring. The live view, metrics and plots read these.

Writing one costs well under a microsecond; nothing is formatted until somebody looks.
"""

from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from gardener.runtime import clock

What: TypeAlias = Literal[
    "queued",  # stage: a segment came in
    "computed",  # stage: a forward pass is done; `seconds` of compute
    "dropped",  # stage: rows that had died were not computed
    "sent",  # holder: a segment went into the ring; `items` are its ids
    "judged",  # holder: its verdict is back; `seconds` since it was sent; `items`: see below
    "emitted",  # holder: `rows` tokens were accepted; `items` are the tokens
    "missed",  # holder: the last of the tokens emitted before this had stood in no tree
    "grown",  # holder: the drafter added `rows` nodes; `seconds` it took
]


class Record(NamedTuple):
    """`at` and `seconds` are in seconds of `gardener.runtime.clock`.

    `items` of a verdict: for each stage how long the segment waited there and was computed, in
    microseconds.
    """

    at: float
    what: What
    request: int
    seq: int
    rows: int
    seconds: float
    items: tuple[int, ...]


class Trace:
    """The newest `size` records, oldest first."""

    def __init__(self, size: int = 4096) -> None:
        self._records: deque[Record] = deque(maxlen=size)

    def restart(self, size: int) -> None:
        """Forget all, and keep the newest `size` from now on."""
        self._records = deque(maxlen=size)

    def add(
        self,
        what: What,
        request: int = 0,
        seq: int = 0,
        rows: int = 0,
        seconds: float = 0.0,
        items: tuple[int, ...] = (),
    ) -> None:
        """Note that something happened now."""
        self.keep(Record(clock.now(), what, request, seq, rows, seconds, items))

    def keep(self, record: Record) -> None:
        """Add a record."""
        self._records.append(record)

    def __iter__(self) -> Iterator[Record]:
        # A copy: the live view reads on another thread while records are added.
        return iter(tuple(self._records))

    def after(self, last: Record | None) -> list[Record]:
        """Records younger than `last`; all there are if it is None or has left the ring."""
        found: list[Record] = []
        for record in reversed(tuple(self._records)):
            if record is last:
                break
            found.append(record)
        found.reverse()
        return found
