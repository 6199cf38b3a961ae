"""An answer that was reckoned in virtual time, told at the pace of that time."""

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self, cast

from gardener.decoding.events import Moment
from gardener.decoding.limits import Counts
from gardener.decoding.policy import Policy
from gardener.errors import GardenerError
from gardener.holder.answer import Wanted
from gardener.holder.piece import Piece
from gardener.protocol.sampling import Sampling
from gardener.rings.opened import OpenRing
from gardener.runtime import clock
from gardener.serve.asked import Guessed


@dataclass(frozen=True)
class Reckoned:
    """All of an answer: its pieces with the virtual seconds after which each came, what went wrong
    after them, and what is to be told of it."""

    number: int
    pieces: list[tuple[float, Piece]]
    error: GardenerError | None
    speculation: Guessed
    sampling: Sampling
    finish_reason: str | None
    cached_tokens: int


async def reckoned(
    ring: OpenRing, wanted: Wanted, policy: Policy, left: threading.Event
) -> Reckoned:
    """Ask a ring that is simulated on the running loop. It ends early once `left` is set. Raises
    what `OpenRing.begin` raises."""
    session = ring.begin(wanted, policy)
    begin, pieces, error = clock.now(), [], None
    try:
        async with session:
            async for piece in session:
                pieces.append((clock.now() - begin, piece))
                if left.is_set():
                    session.close()
    except GardenerError as caught:
        error = caught
    return Reckoned(
        session.number,
        pieces,
        error,
        session.speculation,
        session.sampling,
        session.finish_reason,
        session.cached_tokens,
    )


@dataclass(frozen=True)
class _Planned:
    """Before it is reckoned."""

    asked: int
    policy: Policy
    counts: Counts = field(default_factory=Counts)
    moment: Moment = field(default_factory=Moment)


class PacedAnswer:
    """What a route reads, see `Asked`."""

    def __init__(
        self, wanted: Wanted, policy: Policy, work: "Future[Reckoned]", left: threading.Event
    ) -> None:
        """`work`: where it is reckoned; `left`: see `reckoned`."""
        self.number = 0  # until it is reckoned
        self.speculation: Guessed = _Planned(len(wanted.tokens), policy)
        self.sampling = wanted.sampling
        self.cached_tokens = self.interruptions = 0
        self.finish_reason: str | None = None
        self.waited: float | None = None
        self._begun, self._work, self._left = clock.now(), work, left
        self._pieces: deque[tuple[float, Piece]] = deque()
        self._found: Reckoned | None = None
        self._error: Exception | None = None
        self._ready = asyncio.Event()  # it is reckoned, or over
        self._over = asyncio.Event()  # ended from outside
        asyncio.wrap_future(work).add_done_callback(self._take)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        await self._ready.wait()
        if self._pieces:
            await self._until(self._begun + self._pieces[0][0])
        if self._pieces and not self._over.is_set():
            return self._pieces.popleft()[1]
        if self._found is not None and self.finish_reason is None:
            self.finish_reason = self._found.finish_reason
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def close(self) -> None:
        """End it where it stands, if it has not ended."""
        self._end("abandoned")

    def fail(self, error: GardenerError, reason: str = "failed") -> None:
        """End it, because of `error`."""
        if self.finish_reason is None:
            self._error = error
            self._end(reason)

    def _end(self, reason: str) -> None:
        if self.finish_reason is None:
            self.finish_reason = reason
            self._left.set()
            self._work.cancel()  # if it has not begun
            self._over.set()
            self._ready.set()

    async def _until(self, due: float) -> None:
        """Wait for this time, or until it is over."""
        pause = due - clock.now()
        if pause > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._over.wait()

    def _take(self, work: "asyncio.Future[Reckoned]") -> None:
        """It is reckoned: now is its first moment."""
        if work.cancelled() or self.finish_reason is not None:
            return
        now = clock.now()
        self.waited, self._begun = now - self._begun, now
        self._error = cast(Exception | None, work.exception())
        if self._error is None:
            found = self._found = work.result()
            self._pieces.extend(found.pieces)
            self.number, self.speculation = found.number, found.speculation
            self.sampling = found.sampling
            self.cached_tokens, self._error = found.cached_tokens, found.error
        self._ready.set()
