"""The clock of a run: its hours bound all that it does, the last look at the head included."""

import time
from collections.abc import Callable

CLOSING = 240.0
"""Most seconds that are kept for the last look and the report; an eighth of the time if that is
less."""

LOOKING = 0.75
"""Share of these for the last look."""


class Stopped(Exception):
    """The user has had enough. What there is was kept."""


class Hours:
    """A number of hours, for all sessions on a folder together.

    before: seconds worked in earlier sessions; whoever reads them from the disk sets it.
    under_way: whether anything has begun that is worth keeping.
    """

    def __init__(
        self,
        hours: float,
        stopped: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """They begin now. `stopped`: whether the user has had enough."""
        self._stopped, self._now = stopped, now
        self._began = now()
        self.total = 3600 * hours
        self.closing = min(self.total / 8, CLOSING)
        self.before = 0.0
        self.under_way = False

    @property
    def seconds(self) -> float:
        """Worked so far, in all sessions."""
        return self.before + self._now() - self._began

    @property
    def left(self) -> float:
        """Seconds until all is to be done."""
        return max(self.total - self.seconds, 0.0)

    @property
    def share(self) -> float:
        """How much of the time for writing and training is over: 1 where none of it is left."""
        return self.seconds / (self.total - self.closing)

    def part(self, share: float) -> float:
        """Seconds in a share of the time for writing and training."""
        return share * (self.total - self.closing)

    def check(self) -> None:
        """Raise Stopped if the user has had enough: to be asked wherever nothing is half done."""
        self.under_way = True
        if self._stopped():
            raise Stopped

    def at_most(self, seconds: float) -> Callable[[], bool]:
        """Returns what tells whether fewer than `seconds` have passed since this call. Asking it
        raises Stopped when the user has had enough."""
        end = self._now() + seconds

        def more() -> bool:
            self.check()
            return self._now() < end

        return more
