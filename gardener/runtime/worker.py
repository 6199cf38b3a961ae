"""The one worker thread that owns the tensors.

Everything that touches a tensor of a model goes through one `Worker`, in the order it was asked
for, so nothing about tensors needs a lock and the event loop never waits for arithmetic.

This is less than an executor of the standard library on purpose: the hand-over between the two
threads is on the way of every token, and after a forward pass has swept the processor's caches,
each line of Python there costs several times what it does in a loop.
"""

import asyncio
import traceback
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import ParamSpec, Protocol, TypeVar

from gardener.runtime import clock

P = ParamSpec("P")
T = TypeVar("T")


class AnyWorker(Protocol):
    """First in, first out; one at a time. All calls come from the event loop."""

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in its turn and return what it returns, or raise what it raises."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle(result: T | None, error: BaseException | None, _: float) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]  # T may be None itself
            else:
                future.set_exception(error)

        self.call(settle, partial(work, *args, **kwargs))
        return await future

    def call(
        self, done: Callable[[T | None, BaseException | None, float], None], work: Callable[[], T]
    ) -> None:
        """Run `work` in its turn, then `done(result, error, seconds)` on this loop: one of the
        first two is None, and `seconds` is how long the work itself took."""

    def submit(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Let `work`, which must not fail, run in its turn; nobody waits for it."""

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        ...

    def close(self, patience: float | None = None) -> None:
        """Drop what has not begun, and wait for what has, at most `patience` seconds."""


class Worker(AnyWorker):
    """On a thread of its own. See `AnyWorker`."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._closed = False
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def call(
        self, done: Callable[[T | None, BaseException | None, float], None], work: Callable[[], T]
    ) -> None:
        """See `AnyWorker`."""
        loop = asyncio.get_running_loop()

        def job() -> None:
            result, error = None, None
            begin = clock.now()
            try:
                result = work()
            except BaseException as caught:
                error = caught
            try:
                loop.call_soon_threadsafe(done, result, error, clock.now() - begin)
            except RuntimeError:  # the loop has closed, nobody waits any more
                return

        self._jobs.put(job)

    def submit(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """See `AnyWorker`."""
        self._jobs.put(partial(work, *args, **kwargs))

    @property
    def waiting(self) -> int:
        """See `AnyWorker`."""
        return self._jobs.qsize()

    def close(self, patience: float | None = None) -> None:
        """See `AnyWorker`."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join(patience)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._closed:
                continue
            try:
                job()
            except BaseException:  # without this thread everybody would wait for ever
                traceback.print_exc()
