"""Keeps a ring open: opens it, and opens another one when its holder has given it up. One that only
broke goes on by itself."""

import asyncio
import logging

from gardener.errors import GardenerError, PeerLost, UserError, reason
from gardener.holder.admission import MAX_WAITING
from gardener.protocol.sampling import GREEDY
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import Say
from gardener.serve.asked import Ring
from gardener.serve.question import usual_sampling

log = logging.getLogger(__name__)

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
        self._stood = False  # a ring did, at least once

    @property
    def broken(self) -> bool:
        """Whether there is no ring because the one before broke."""
        return self.ring is None and bool(self._broke)

    async def run(self) -> None:
        """Keep the ring open until this is cancelled.

        Raises what went wrong if no ring stood yet and none will: UserError, PeerLost if the stages
        that are started here end, and what is no GardenerError.
        """
        pause = SHORTEST
        while True:
            try:
                await self._keep()
                pause = SHORTEST
            except Exception as error:
                if not self._stood and self._hopeless(error):
                    raise
                self._broken(_sentence(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST)

    def _hopeless(self, error: Exception) -> bool:
        """Whether the ring will never open: nobody will come and mend what is started here."""
        if isinstance(error, PeerLost):
            return self._settings.local is not None
        return isinstance(error, UserError) or not isinstance(error, GardenerError)

    async def _keep(self) -> None:
        """From the opening of a ring to its break."""
        async with open_ring(self._settings, self._tell, self._heard) as ring:
            ring.holder.admission.max_waiting = self._waiting
            self.usual = usual_sampling(ring.folder)
            self._stands(ring)
            self._say("requests are taken")
            try:
                self._broken(str(await ring.holder.failure()))
            finally:
                self.ring = None

    def _stands(self, ring: Ring) -> None:
        self.ring, self._broke, self._stood = ring, "", True

    def _broken(self, why: str) -> None:
        self._broke = self.why = why
        self._say(f"error: {why}")

    def _tell(self, line: str) -> None:
        """While it opens, what is said is what it waits for."""
        self.why = f"{self._broke}; now: {line}" if self._broke else line
        self._say(line)


def _sentence(error: Exception) -> str:
    """What to tell about a ring that could not be opened."""
    if isinstance(error, GardenerError):
        return str(error)
    log.error("the ring could not be opened", exc_info=error)
    return f"the ring could not be opened: {type(error).__name__}: {reason(error)}"
