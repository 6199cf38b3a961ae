"""An event loop whose clock jumps to the next thing that is due, and whose network is memory."""

import asyncio
import random
import signal
from collections.abc import Callable
from contextvars import Context
from typing import Any, cast

from gardener.errors import UserError
from gardener.rings.simulate.network import Factory, SimulatedNetwork
from gardener.runtime import clock

try:
    import async_solipsism
except ImportError as missing:
    raise UserError(
        "--simulate needs the package async-solipsism: pip install 'gardener-node[simulate]'"
    ) from missing


class Loop(async_solipsism.EventLoop):  # type: ignore[misc]  # the package has no types
    """While it runs, `runtime.clock` is its clock on this thread. Python's own random numbers, by
    which links space their attempts to dial again, begin at `seed`. It starts no thread."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.network = SimulatedNetwork()
        """The network in which new connections are made."""
        self._seed = seed
        self._tick: float = self._selector.clock.resolution
        self._clock_resolution = self._tick / 2  # asyncio runs a timer as much too early

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        """Those that are set."""
        return [timer for timer in self._scheduled if not timer.cancelled()]

    def run_forever(self) -> None:
        chance = random.getstate()
        random.seed(self._seed)
        try:
            with clock.using_here(self.time):
                super().run_forever()
        finally:
            random.setstate(chance)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Times are whole ticks of the clock: it could not stand still between two."""
        due = round(when / self._tick) * self._tick
        return cast(asyncio.TimerHandle, super().call_at(due, callback, *args, context=context))

    async def create_connection(
        self, factory: Factory, host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        return await self.network.connect(factory, host, port)

    async def create_server(self, factory: Factory, host: str, port: int) -> asyncio.Server:
        return cast(asyncio.Server, self.network.serve(factory, host, port))

    async def run_in_executor(self, executor: object, work: Callable[..., Any], *args: Any) -> Any:
        """At once: it takes no time here."""
        return work(*args)

    def add_signal_handler(self, number: int, callback: Callable[..., object], *args: Any) -> None:
        """Called at once, wherever the loop may be, for it may compute for a long time."""
        signal.signal(number, lambda *_: callback(*args))
