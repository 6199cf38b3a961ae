"""A worker without a thread: it does the work at once, then lets the time pass that it costs."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

from gardener.rings.simulate.network import INSTANT
from gardener.rings.simulate.processor import Processor
from gardener.runtime.worker import AnyWorker

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Bill:
    """What a piece of work costs. It has `steps` of equal length; after each of them but the last
    it ends without a result if it was `cancelled`."""

    seconds: float = 0.0
    steps: int = 1
    cancelled: Callable[[], bool] = lambda: False


class Meter:
    """Work charges here what it costs, while it is done."""

    def __init__(self) -> None:
        self._bill = Bill()

    def charge(
        self, seconds: float, steps: int = 1, cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        """Add to the bill. Work that can be cancelled must charge only once."""
        self._bill = Bill(self._bill.seconds + seconds, steps, cancelled)

    def take(self) -> Bill:
        """What was charged since the last call."""
        bill, self._bill = self._bill, Bill()
        return bill


Done = Callable[[Any, BaseException | None, float], None]


class VirtualWorker(AnyWorker):
    """Implements `runtime.worker.AnyWorker` in the time of the running loop. A result is handed
    over when the `processor`, if one is given, is free."""

    def __init__(self, name: str, meter: Meter, processor: Processor | None = None) -> None:
        self.name = name
        self._meter = meter
        self._processor = processor
        self._queue: deque[tuple[Done | None, Callable[[], object]]] = deque()
        self._timer: asyncio.Handle | None = None  # of the work whose time is passing

    def call(
        self, done: Callable[[T | None, BaseException | None, float], None], work: Callable[[], T]
    ) -> None:
        """See `AnyWorker`."""
        self._queue.append((done, work))
        self._next()

    def submit(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """See `AnyWorker`."""
        self._queue.append((None, partial(work, *args, **kwargs)))
        self._next()

    @property
    def waiting(self) -> int:
        """See `AnyWorker`."""
        return len(self._queue)

    def close(self, patience: float | None = None) -> None:
        """Drop everything: there is nothing to wait for."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _next(self) -> None:
        """Begin the next piece of work, unless the time of another one is passing."""
        while self._queue and self._timer is None:
            done, work = self._queue.popleft()
            self._meter.take()
            result: object = None
            error: Exception | None = None
            try:
                result = work()
            except Exception as caught:
                error = caught
            bill = self._meter.take()
            if done is not None or bill.seconds:
                now = asyncio.get_running_loop().time()
                self._pay(_Debt(done, result, error, bill, now), 0)

    def _pay(self, debt: "_Debt", step: int) -> None:
        """This number of steps has passed: wait for the next one, or hand over the result."""
        bill = debt.bill
        spent = bill.seconds * step / bill.steps
        if step < bill.steps and not (step and bill.cancelled()):
            due = debt.begin + bill.seconds * (step + 1) / bill.steps
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(due, self._pay, debt, step + 1)
            return
        self._timer = None
        if debt.done is not None:
            self._tell(debt.done, debt.result if step == bill.steps else None, debt.error, spent)
        self._next()

    def _tell(
        self, done: Done, result: object, error: BaseException | None, seconds: float
    ) -> None:
        loop = asyncio.get_running_loop()
        if self._processor is not None and self._processor.free > loop.time() + INSTANT:
            loop.call_at(self._processor.free, self._tell, done, result, error, seconds)
            return
        done(result, error, seconds)


@dataclass(frozen=True, slots=True)
class _Debt:
    """Work that was done at the loop time `begin`, and whose time is still passing."""

    done: Done | None
    result: object
    error: Exception | None
    bill: Bill
    begin: float
