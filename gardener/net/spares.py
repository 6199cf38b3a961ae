"""Nodes that stand by for a stage that stays away."""

from dataclasses import dataclass

from gardener.net.address import Address, parse_peer
from gardener.protocol.messages import Card

SPARE_AFTER = 20.0
"""Seconds for which a stage stays away before a spare is asked to step in its place."""


@dataclass(frozen=True)
class Spares:
    """Where spares listen.

    after   seconds for which the stage is waited for before the first one is asked; and as many
            again before the next one is asked, too, each time
    missed  the card of the stage, as long as it was there; None: nobody can step in its place
    """

    places: tuple[Address, ...] = ()
    after: float = SPARE_AFTER
    missed: Card | None = None

    def due(self, waited: float) -> tuple[Address, ...]:
        """Those that are asked after so many seconds."""
        if waited < self.after:
            return ()
        return self.places[: 1 + int((waited - self.after) / max(self.after, 1.0))]


NO_SPARES = Spares()


def parse_spares(places: str, after: float) -> Spares:
    """Of a list `host:port,host:port`. Raises UserError."""
    found = [each.strip() for each in places.split(",") if each.strip()]
    return Spares(tuple(map(parse_peer, found)), after)
