"""What somebody waits for, told when it changes: a reason that lasts is told once, one that comes
back after another is told again, and reasons that take turns do not flood."""

import asyncio
from collections.abc import Callable

AGAIN = 5.0
"""Seconds for which a reason that was told is not told again; doubled each time that it was."""

LASTS = 3.0
"""Seconds for which a stage may miss the holder, which has only just come, until that is told."""

KEPT = 64
"""Most reasons that are remembered: a peer makes them up."""


class Reasons:
    """Give it the reason as often as it is seen to hold; `say` is called when that is news."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._newest = ""
        self._quiet: dict[str, tuple[float, float]] = {}  # until when, and the seconds after that

    def tell(self, reason: str) -> None:
        if reason == self._newest:
            return
        now = asyncio.get_running_loop().time()
        until, pause = self._quiet.get(reason, (now, AGAIN))
        if now < until:
            return  # if it lasts, it is given again
        if len(self._quiet) >= KEPT:
            self._quiet.clear()
        self._quiet[reason] = (now + pause, 2 * pause)
        self._newest = reason
        self._say(reason)

    def forget(self) -> None:
        """The wait is over: whatever comes is news."""
        self._newest = ""
        self._quiet.clear()
