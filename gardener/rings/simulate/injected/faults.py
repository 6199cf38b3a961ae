"""What goes wrong in a ring, and when."""

import math
from collections.abc import Callable
from dataclasses import dataclass

NEVER = math.inf
"""Seconds after which something is over that lasts until nobody asks any more."""

CRASHES = ("crash", "reset crash", "power")
PARTINGS = (*CRASHES, "leave")
CUTS = ("reset", "silence", "one way")
ON_LINKS = (*CUTS, "stall", "spike")
GUESTS = ("twin", "stranger", "mute")
ON_STAGES = (*PARTINGS, "pause", *GUESTS)
HIDDEN = ("power", "silence", "one way", "stall", "holder crash")
HOLDER_ENDS = ("holder crash", "holder leave")
KINDS = (*ON_STAGES, *ON_LINKS, "holder pause", *HOLDER_ENDS)
"""All that can go wrong.

crash         a process ends as after kill -9, and another one takes its place
reset crash   the same, and its connections are reset
power         the same, and nobody is told, nor answered until it is back
leave         a stage is ended politely, and started again
pause         a process stands still
twin          a stage is started a second time, at another address or at its own
stranger      somebody greets a stage as the one before it, who has greeted it already
mute          connections to a stage on which nobody ever says a word
reset         the connection between two neighbours is reset
silence       nothing that is sent over it arrives any more, and nobody is told
one way       the same, in one direction
stall         it stands still, then brings all at once
spike         what it brings is late by chance
"""


@dataclass(frozen=True)
class When:
    """at: so many seconds after the start. joining: so many seconds after the ring broke. send,
    hear: before the write of this number of the machine `who`, or before it gets the piece of this
    number that arrives, counted from the moment that the ring stands."""

    what: str
    value: float
    who: int = 0

    def __str__(self) -> str:
        match self.what:
            case "at":
                return f"{self.value:.6f} s after the start"
            case "joining":
                return f"{self.value:.6f} s after the ring broke"
            case _:
                return f"before {self.what} {self.value:.0f} of machine {self.who}"


@dataclass(frozen=True)
class Fault:
    """`where`: the number of a stage, 0 for the holder; or of the link from that one to the next.
    `seconds`: after which it is over."""

    kind: str
    where: int
    seconds: float
    when: When

    def __str__(self) -> str:
        place = "link from" if self.kind in ON_LINKS else "machine"
        lasts = "for good" if self.seconds == NEVER else f"over after {self.seconds:.6f} s"
        return f"{self.kind}, {place} {self.where}, {self.when}, {lasts}"


class Boundaries:
    """Counts what the machines send and hear, and says what is due then."""

    def __init__(self) -> None:
        self.armed = False
        self._counts: dict[tuple[str, int], int] = {}
        self._due: dict[tuple[str, int, int], list[Callable[[], None]]] = {}

    def at(self, when: When, then: Callable[[], None]) -> None:
        """Do this before that."""
        self._due.setdefault((when.what, when.who, int(when.value)), []).append(then)

    def passed(self, what: str, who: int) -> None:
        """The machine `who` is about to send or to hear."""
        if self.armed:
            count = self._counts[what, who] = self._counts.get((what, who), 0) + 1
            for then in self._due.pop((what, who, count), ()):
                then()

    def count(self, what: str, who: int) -> int:
        """How often it has, since it is counted."""
        return self._counts.get((what, who), 0)
