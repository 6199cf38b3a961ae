"""The size that segments should keep, by what could be sent lately."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, zip_longest

RATE = 0.05
"""Weight of the newest segment in the mean."""

EVERY = 8
"""Segments after which the size is found anew: the mean hardly changes faster."""


class SteadySize:
    """Rows of a segment, where those of all segments are as many.

    A row that does not leave with one segment leaves with the next: sending it brings a tick,
    times its chance, and costs what it lengthens all ticks by. So it is worth its time if its
    chance is at least the share by which it lengthens a tick, and the best size is where the sum of
    the chances less the logarithm of the tick is greatest. It follows from the chances of what
    could be sent, likeliest first, in the mean over the last segments: what one of them alone
    offers changes too much, and a size that changes costs time by itself.
    """

    def __init__(self) -> None:
        self._chances: list[float] = []
        self._seen = 0
        self._due = 0  # segments after which the size is found anew
        self._rows = 0

    def offered(self, chances: Sequence[float]) -> None:
        """These rows could be sent, and a segment left."""
        self._seen += 1
        share = max(RATE, 1 / self._seen)
        pairs = zip_longest(self._chances, chances, fillvalue=0.0)
        self._chances = [old + share * (new - old) for old, new in pairs]

    def rows(self, seconds: Callable[[int], float]) -> int:
        """The best number, at least 1; `seconds` of a tick by rows. 0 if nothing was offered."""
        if self._seen >= self._due:
            self._due = self._seen + min(self._seen, EVERY)
            self._rows = self._best(seconds)
        return self._rows

    def _best(self, seconds: Callable[[int], float]) -> int:
        best, most = 0, -math.inf
        for rows, tokens in enumerate(accumulate(self._chances), 1):
            worth = tokens - math.log(max(seconds(rows), 1e-9))
            if worth >= most - 1e-12:  # where rows are free, the more the better
                best, most = rows, max(worth, most)
        return best
