"""Whether a stage may hold the link to the next one, of which another one may have need.

A stage and the spare that stepped in its place are both there once the stage has come back. The
next stage takes one link, and only that of the one who is dialled from before is of use: so who is
dialled by nobody lets go.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

YIELD = 5.0
"""Seconds for which a stage that is dialled by nobody any more keeps its link to the next one: the
one before it may have lost its own only for a moment. And seconds for which it is refused for
another one before it dials no more: the next one may not know yet that our own link has ended."""

TAKEN = " already serve"
"""In what a peer says that refuses a stage because another one came first (`cards.busy`)."""

FREE = "the link is free for another"
"""The end of what the next stage is told when a stage lets go of it."""


class Turn:
    """That of one stage. Stage 1 is dialled by holders, which come and go: it lets nothing go."""

    def __init__(self, stage: int, *, stepped_in: bool) -> None:
        """`stepped_in`: it is a spare, in the place of a stage that may come back. Others dial at
        once when they start."""
        self._lasting = stage == 1 and not stepped_in
        self._allowed = asyncio.Event()
        self._limit: asyncio.Timeout | None = None  # of the link, or of dialling
        self._refused: float | None = None  # since when, in loop time, for another one's sake
        if not stepped_in:
            self._allowed.set()

    @property
    def allowed(self) -> bool:
        """Whether it may dial."""
        return self._allowed.is_set()

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Waits until the stage may dial. The body dials, and lasts as long as the link: it is
        cancelled, and TimeoutError raised, when that is to be let go."""
        while not self.allowed:
            await self._allowed.wait()
        try:
            async with asyncio.timeout(None) as self._limit:
                yield
        finally:
            self._limit = self._refused = None

    def met(self) -> None:
        """Somebody stands before the stage."""
        self._allowed.set()
        self._end_in(None)

    def alone(self, *, linked: bool) -> None:
        """Nobody does any more. `linked`: it has the next one."""
        if not self._lasting:
            self._allowed.clear()
            self._end_in(YIELD if linked else 0.0)

    def refused(self, why: str) -> None:
        """Nobody stands before it, and it cannot reach the next one. If that keeps to another one,
        the stage is not needed until somebody dials it."""
        now = asyncio.get_running_loop().time()
        if TAKEN not in why:
            self._refused = None
        elif self._refused is None:
            self._refused = now
        elif now - self._refused >= YIELD:
            self._allowed.clear()
            self._end_in(0.0)

    def _end_in(self, seconds: float | None) -> None:
        if self._limit is not None and not self._limit.expired():
            now = asyncio.get_running_loop().time()
            self._limit.reschedule(None if seconds is None else now + seconds)
