"""Seconds that something may take: of the whole run, of a part of it, of a piece of that."""

import time
from collections.abc import Callable


class Budget:
    """Seconds from now on."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._now = seconds, now
        self._begin = now()

    @property
    def spent(self) -> float:
        """Since it began."""
        return self._now() - self._begin

    @property
    def left(self) -> float:
        """Never less than 0."""
        return max(self.seconds - self.spent, 0.0)

    def share(self, part: float, whole: float) -> "Budget":
        """What is due to one of those that have still to come, who weigh `whole` together, it among
        them. What it leaves unspent, the others have."""
        return Budget(self.left * min(part / whole, 1.0), self._now)
