"""The one worker thread that owns the tensors.

Everything that touches a tensor of a model goes through one `Worker`, in the order it was asked
for, so nothing about tensors needs a lock and the event loop never waits for arithmetic.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """First in, first out; one at a time."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` on the thread and return what it returns, or raise what it raises."""
        future = self._pool.submit(work, *args, **kwargs)
        return await asyncio.wrap_future(future)

    def submit(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Let `work` run in its turn; nobody waits for it."""
        self._pool.submit(work, *args, **kwargs)

    def close(self) -> None:
        """Drop what has not begun, and wait for what has."""
        self._pool.shutdown(wait=True, cancel_futures=True)
