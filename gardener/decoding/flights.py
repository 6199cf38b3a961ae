"""The ledger of segments under way: what left, when, and when its verdict is expected.

Everybody who asks what is in the ring reads this one: the pacer, the costs, reports of a loss, the
live view and the evaluation.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from gardener.errors import RemoteError


@dataclass(frozen=True, slots=True)
class Flight:
    """A segment under way. Times are in seconds of the clock that the round is given.

    seq     its number within the request
    ids     its rows: `prompt` rows of the prompt, then those of the tree
    left    when it was sent
    tick    for how long it keeps the slowest stage or link busy, as far as was known then
    due     when its verdict is expected
    """

    seq: int
    ids: tuple[int, ...]
    prompt: int
    left: float
    tick: float
    due: float

    @property
    def size(self) -> int:
        """All its rows."""
        return len(self.ids)

    @property
    def rows(self) -> int:
        """Those of the tree."""
        return len(self.ids) - self.prompt


class Flights:
    """Of one request, the oldest first. Verdicts come back in the order of sending."""

    def __init__(self) -> None:
        self._under_way: deque[Flight] = deque()
        self.newest: Flight | None = None  # that left, whether its verdict is back or not
        self.judged = -1  # number of the newest verdict

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._under_way)

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def oldest(self) -> Flight | None:
        """The one whose verdict is due next."""
        return self._under_way[0] if self._under_way else None

    @property
    def with_tree(self) -> int:
        """How many of them carry rows of the tree."""
        return sum(1 for flight in self._under_way if flight.rows)

    @property
    def prompt_rows(self) -> int:
        """Rows of the prompt under way."""
        return sum(flight.prompt for flight in self._under_way)

    def leave(self, flight: Flight) -> None:
        """It was sent."""
        self._under_way.append(flight)
        self.newest = flight

    def land(self, seq: int) -> Flight:
        """The verdict of segment `seq` is back. Raises RemoteError if it was not the next due."""
        due = self.oldest
        if due is None or due.seq != seq:
            raise RemoteError(
                f"a verdict for segment {seq}, but the next one due is "
                f"{'none' if due is None else due.seq}"
            )
        self.judged = seq
        return self._under_way.popleft()
