"""Nodes that stand by for a stage that stays away, and which of them is asked."""

import math
import re
from dataclasses import dataclass

from gardener.errors import UserError
from gardener.net.address import Address, parse_peer
from gardener.protocol.messages import Card

SPARE_AFTER = 20.0
"""Seconds for which a stage stays away before a spare is asked to step in its place."""


@dataclass(frozen=True)
class Spares:
    """Where spares listen, in the order in which they are asked.

    after   seconds for which the stage is waited for before the first one is asked; and as many
            again for each that does not step in its place, before the next one has its turn
    missed  the card of the stage, as long as it was there; None: nobody can step in its place
    """

    places: tuple[Address, ...] = ()
    after: float = SPARE_AFTER
    missed: Card | None = None


NO_SPARES = Spares()


def parse_spares(places: str, after: float) -> Spares:
    """Of a list `host:port,host:port`. Raises UserError."""
    found = [each.strip() for each in places.split(",") if each.strip()]
    if again := {each for each in found if found.count(each) > 1}:
        raise UserError(f"--spares names {min(again)} more than once: name each spare once")
    return Spares(tuple(map(parse_peer, found)), after)


def steps_in(stage: int) -> str:
    """What a spare says that it does, from when it takes the place of a stage until it serves."""
    return f"steps in the place of stage {stage}"


class Turns:
    """Whose turn it is while a stage is waited for. Each spare is used up by what it is asked: so
    as long as one steps in, however long it loads, no other is asked."""

    def __init__(self, spares: Spares, now: float) -> None:
        """The wait begins `now`, seconds on any clock."""
        self._spares = spares
        self._next = now + spares.after  # when one more has its turn; inf: while one steps in
        self._had = 0  # so many have had it
        self._steps_in: Address | None = None

    def due(self, now: float) -> tuple[Address, ...]:
        """Those that are asked now, one after the other until one steps in."""
        if now >= self._next:
            self._had = min(self._had + 1, len(self._spares.places))
            self._steps_in = None
            self._next = now + self._pause
        return self._spares.places[: self._had] if self._steps_in is None else (self._steps_in,)

    def answered(self, spare: Address, said: str, now: float) -> bool:
        """It has given no link, and `said` why. Returns whether it steps in the place of the
        stage."""
        missed = self._spares.missed
        if missed is not None and re.search(rf"\b{steps_in(missed.stage)}\b", said):
            self._steps_in, self._next = spare, math.inf
            return True
        if spare == self._steps_in and self._next == math.inf:  # it may have ended
            self._next = now + self._pause
        return False

    @property
    def _pause(self) -> float:
        """Seconds between two turns."""
        return max(self._spares.after, 1.0)
