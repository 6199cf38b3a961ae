"""The ledger of segments under way: what left, when, and when its verdict is expected.

Who asks what is in the ring reads this one: the pacer, the costs, reports of a loss and the live
view. (The evaluation reads what the trace says of them afterwards.)
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gardener.errors import RemoteError


@dataclass(frozen=True, slots=True)
class Flight:
    """A segment under way. Times are in seconds of the clock that the round is given.

    seq     its number within the request
    ids     its rows: `prompt` rows of the prompt, then those of the tree
    left    when it was sent
    tick    for how long it keeps the slowest stage or link busy, as far as was known then
    due     when its verdict is expected
    beside  rows of other requests that left with it, to be computed in the same passes
    context tokens of a text among these, in the mean; None: it left alone
    first   whether it is the first of those that left together
    """

    seq: int
    ids: tuple[int, ...]
    prompt: int
    left: float
    tick: float
    due: float
    beside: int = 0
    context: int | None = None
    first: bool = True

    @property
    def size(self) -> int:
        """All its rows."""
        return len(self.ids)

    @property
    def tree_rows(self) -> int:
        """Those of the tree."""
        return len(self.ids) - self.prompt


class Flights:
    """Of one request, the oldest first. Verdicts come back in the order of sending."""

    def __init__(self) -> None:
        self._under_way: deque[Flight] = deque()
        self.newest: Flight | None = None  # that left, whether its verdict is back or not
        self.oldest: Flight | None = None  # the one whose verdict is due next
        self.with_tree = 0  # how many of them carry rows of the tree

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._under_way)

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def prompt_rows(self) -> int:
        """Rows of the prompt under way."""
        return sum(flight.prompt for flight in self._under_way)

    def due(self, seq: int) -> Flight | None:
        """Segment `seq`, if its verdict is the next one due."""
        oldest = self.oldest
        return oldest if oldest is not None and oldest.seq == seq else None

    def leave(self, flight: Flight) -> None:
        """It was sent."""
        self._under_way.append(flight)
        self.newest, self.oldest = flight, self._under_way[0]
        self.with_tree += flight.tree_rows > 0

    def joined(self, tick: float, due: float, beside: int, context: int, *, first: bool) -> Flight:
        """The newest one left together with `beside` rows of others, which is what its `tick` and
        `due` follow from."""
        newest = replace(
            self._under_way[-1], tick=tick, due=due, beside=beside, context=context, first=first
        )
        self._under_way[-1] = self.newest = newest
        self.oldest = self._under_way[0]
        return newest

    def land(self, seq: int) -> Flight:
        """The verdict of segment `seq` is back. Raises RemoteError if it was not the next due."""
        due = self.due(seq)
        if due is None:
            raise RemoteError(
                f"a verdict for segment {seq}, but the next one due is "
                f"{'none' if self.oldest is None else self.oldest.seq}"
            )
        self._under_way.popleft()
        self.oldest = self._under_way[0] if self._under_way else None
        self.with_tree -= due.tree_rows > 0
        return due
