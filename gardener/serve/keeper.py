"""Keeps a ring open: opens it, and opens it again after it broke."""

import asyncio

from gardener.errors import GardenerError, PeerLost, UserError
from gardener.holder.admission import MAX_WAITING
from gardener.protocol.sampling import GREEDY
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import Say
from gardener.serve.asked import Ring
from gardener.serve.question import usual_sampling

SHORTEST, LONGEST = 1.0, 15.0
"""Seconds between two attempts to open the ring; doubled after each that failed."""


class RingKeeper:
    """`run` it as long as the ring is wanted.

    ring  the ring while it stands; None: there is none now
    why   there is none, in a sentence: what it waits for, or what broke it
    usual how the ring's model picks tokens where a request does not say
    """

    def __init__(
        self, settings: RingSettings, say: Say, heard: Say, waiting: int = MAX_WAITING
    ) -> None:
        """`say` and `heard` as `open_ring` has them; `waiting`: most requests that wait."""
        self.ring: Ring | None = None
        self.why = "the ring is being opened"
        self.usual = GREEDY
        self._settings, self._say, self._heard, self._waiting = settings, say, heard, waiting
        self._broke = ""  # the sentence about the ring that was there before

    @property
    def broken(self) -> bool:
        """Whether there is no ring because the one before broke."""
        return self.ring is None and bool(self._broke)

    async def run(self) -> None:
        """Keep the ring open until this is cancelled.

        Raises UserError if it cannot be opened at all, and PeerLost if the stages that are started
        here end the first time.
        """
        pause = SHORTEST
        first = True
        while True:
            try:
                await self._keep()
                pause = SHORTEST
            except GardenerError as error:
                if first and self._hopeless(error):
                    raise
                self._broken(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST)
            first = False

    def _hopeless(self, error: GardenerError) -> bool:
        """Whether the ring will never open: nobody will come and mend what is started here."""
        started_here = self._settings.local is not None
        return isinstance(error, UserError) or (started_here and isinstance(error, PeerLost))

    async def _keep(self) -> None:
        """From the opening of a ring to its break."""
        async with open_ring(self._settings, self._tell, self._heard) as ring:
            ring.holder.admission.max_waiting = self._waiting
            self.usual = usual_sampling(ring.folder)
            self.ring, self._broke = ring, ""
            self._say("requests are taken")
            try:
                self._broken(await ring.holder.failure())
            finally:
                self.ring = None

    def _broken(self, error: GardenerError) -> None:
        self._broke = self.why = str(error)
        self._say(f"error: {error}")

    def _tell(self, line: str) -> None:
        """While it opens, what is said is what it waits for."""
        self.why = f"{self._broke}; now: {line}" if self._broke else line
        self._say(line)
