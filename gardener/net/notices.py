"""What somebody waits for, told to the user when it changes.

A notice that stays the same is told once, one that comes back after another is told again, and
notices that take turns do not flood the terminal. Nor does one in which only the share that is done
moves, or the time that it has taken.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable

AGAIN = 5.0
"""Seconds for which a notice that was told is not told again; doubled every time that it was."""

LASTS = 3.0
"""Seconds for which a stage may miss the holder, which has only just come, until that is told."""

_MOVES = re.compile(r"\d+(?= %)|(, for \d+ s)$|\d\d:\d\d(?= UTC\))")
"""What moves in a notice that is the same otherwise."""

_PORT = re.compile(r"( at \S*[^\s:]):\d+(?=[ :,])")
"""The port of a peer in a sentence: with every attempt it is another one."""

KNOCKS, AT_ONCE = 2.0, 3
"""Seconds for each stranger that is told, in the mean, and how many may be told at once."""

KEPT = 64
"""Most notices that are remembered: their words may come from a peer."""


class Notices:
    """Give it a notice whenever it holds; `say` is called when that is news."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._newest = ""
        self._quiet: dict[str, tuple[float, float]] = {}  # until when, and the seconds after that

    def tell(self, notice: str) -> None:
        """This is so now."""
        if notice == self._newest:
            return
        now = asyncio.get_running_loop().time()
        kind = _MOVES.sub("", notice)
        until, pause = self._quiet.get(kind, (now, AGAIN))
        if now < until:
            return  # if it lasts, it is given again
        if len(self._quiet) >= KEPT:
            self._quiet.clear()
        self._quiet[kind] = (now + pause, 2 * pause)
        self._newest = notice
        self._say(notice)

    def forget(self) -> None:
        """The wait is over: whatever comes is news."""
        self._newest = ""
        self._quiet.clear()


class Strangers:
    """Those who come to a port and cannot be talked to: `say` is told, but nobody who knocks again
    and again, or in many shapes, floods a terminal or fills a disk."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._notices = Notices(self._told)
        self._lately: deque[float] = deque(maxlen=AT_ONCE)  # loop times at which one was told

    def tell(self, sentence: str) -> None:
        """This one has come, and is gone."""
        now, told = asyncio.get_running_loop().time(), self._lately
        if len(told) < AT_ONCE or now - told[0] >= AT_ONCE * KNOCKS:
            self._notices.tell(_PORT.sub(r"\1", sentence, count=1))

    def _told(self, notice: str) -> None:
        self._lately.append(asyncio.get_running_loop().time())
        self._say(notice)
