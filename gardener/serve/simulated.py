"""A simulated ring behind the server: its answers come at the pace of its virtual clock.

Its event loop has no sockets and a clock of its own, so it runs on a thread of its own. An answer
is reckoned as a whole, and then told piece by piece, each as long after the first moment as it came
in virtual time: a person sees how quick such a ring would be. One answer is reckoned at a time;
others wait.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, TypeVar, Unpack

from gardener.errors import Busy
from gardener.holder.holder import Holder
from gardener.holder.prompter import Prompter
from gardener.protocol.messages import Card
from gardener.protocol.sampling import GREEDY
from gardener.rings.open import open_ring
from gardener.rings.opened import OpenRing, Terms
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import Say
from gardener.serve.keeper import RingKeeper
from gardener.serve.paced import PacedAnswer, reckoned

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
            def told(line: str) -> None:
                real.call_soon_threadsafe(say, line)

            return told

        ring = open_ring(self._settings, here(say), here(heard))
        return await asyncio.wrap_future(self.run(lambda: self._stack.enter_async_context(ring)))

    async def close(self) -> None:
        """End the ring and the thread."""
        if self._loop is not None:
            await asyncio.wrap_future(self.run(self._stack.aclose))
            await asyncio.wrap_future(self._thread.submit(self._loop.close))
        self._thread.shutdown(wait=False)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Carry something out in the simulation, after what was asked before."""
        return self._thread.submit(self._run, work)

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._loop is None:
            self._loop = self._settings.loop()()
        return self._loop.run_until_complete(work())


class PacedRing:
    """A simulated ring, as routes see it."""

    def __init__(self, simulation: Simulation, ring: OpenRing, waiting: int) -> None:
        """`waiting`: most answers that wait for their turn."""
        self._simulation, self._ring, self._waiting = simulation, ring, waiting
        self._pending: set[Future[Any]] = set()

    @property
    def prompter(self) -> Prompter:
        """Makes prompts for its model."""
        return self._ring.prompter

    @property
    def holder(self) -> Holder:
        """Runs on the other thread."""
        return self._ring.holder

    @property
    def stages(self) -> tuple[Card, ...]:
        """What the stages say about themselves."""
        return self._ring.stages

    @property
    def exactness(self) -> str:
        """How exact it is, in one sentence."""
        return self._ring.exactness

    @property
    def longest(self) -> int:
        """See `LONGEST`."""
        return LONGEST

    @property
    def waiting(self) -> int:
        """Answers that are not reckoned yet, but for the one that is."""
        return max(len(self._pending) - 1, 0)

    def check_room(self) -> None:
        """Raise Busy if too many wait."""
        if len(self._pending) > self._waiting:
            raise Busy(1, self.waiting, TRY_AGAIN)

    def ask_tokens(self, tokens: Sequence[int], **said: Unpack[Terms]) -> PacedAnswer:
        """Begin an answer. Raises UserError for what cannot be asked, or if too many wait."""
        wanted, policy = self._ring.planned(tokens, **said)
        self.check_room()
        left = threading.Event()
        work = self._simulation.run(lambda: reckoned(self._ring, wanted, policy, left))
        self._pending.add(work)
        work.add_done_callback(self._pending.discard)
        return PacedAnswer(wanted, policy, work, left)


class SimulatedKeeper(RingKeeper):
    """Keeps a simulated ring. A request that does not say how tokens are picked gets the likeliest
    ones: with another seed each time, each answer would have to be recorded anew."""

    async def _keep(self) -> None:
        simulation = Simulation(self._settings)
        try:
            ring = await simulation.open(self._tell, self._heard)
            self.usual = GREEDY
            self._stands(PacedRing(simulation, ring, self._waiting))
            self._say("requests are taken")
            await asyncio.Event().wait()  # nothing breaks it
        finally:
            self.ring = None
            await simulation.close()
