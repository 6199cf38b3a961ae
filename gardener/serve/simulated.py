"""A simulated ring behind the server: its answers come at the pace of its virtual clock.

Its event loop has no sockets and a clock of its own, so it runs on a thread of its own. An answer
is reckoned as a whole, and then told piece by piece, each as long after the first moment as it came
in virtual time: a person sees how quick such a ring would be. One answer is reckoned at a time;
others wait.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, Unpack

from gardener.decoding.limits import Counts
from gardener.decoding.policy import Policy
from gardener.errors import Busy, GardenerError, LocalError
from gardener.holder.answer import Wanted
from gardener.holder.session import Piece, Session
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.rings.open import open_ring
from gardener.rings.opened import OpenRing, Terms
from gardener.rings.settings import RingSettings
from gardener.runtime import clock
from gardener.runtime.wording import Say
from gardener.serve.asked import Guessed
from gardener.serve.keeper import RingKeeper

T = TypeVar("T")

LONGEST = 256
"""Tokens of an answer where the request does not say: what was never asked before is recorded
first, which takes as long as the model does."""

TRY_AGAIN = 5.0
"""Seconds after which it is worth asking again, where too many wait."""


class Simulation:
    """The thread, and the ring in it."""

    def __init__(self, settings: RingSettings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "simulation")
        self._stack = AsyncExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self, say: Say, heard: Say) -> OpenRing:
        """Raises UserError. `say` and `heard` are called on the thread that opens it."""
        real = asyncio.get_running_loop()

        def here(say: Say) -> Say:
            return lambda line: void(real.call_soon_threadsafe(say, line))

        ring = open_ring(self._settings, here(say), here(heard))
        return await asyncio.wrap_future(self.run(lambda: self._stack.enter_async_context(ring)))

    async def close(self) -> None:
        """End the ring and the thread."""
        await asyncio.wrap_future(self.run(self._stack.aclose))
        await asyncio.wrap_future(self._thread.submit(self._end))
        self._thread.shutdown(wait=False)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> "Future[T]":
        """Carry something out in the simulation, after what was asked before."""
        return self._thread.submit(self._run, work)

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._loop is None:
            self._loop = self._settings.loop()()
        return self._loop.run_until_complete(work())

    def _end(self) -> None:
        if self._loop is not None:
            self._loop.close()
