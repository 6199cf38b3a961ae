"""Reads long requests on threads of their own, a few at a time.

They share nothing with what opens the ring. What is left undone is dropped with the client that
wanted it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from gardener.serve.errors import ApiError

THREADS = 2
"""They compute, so more would only take turns, with the event loop among them."""

MOST = 32
"""Long requests that are read or wait for that; each may be some megabytes."""

T = TypeVar("T")


class Readers:
    """The threads, and what they have to do. Its threads end with it."""

    def __init__(self, threads: int = THREADS, most: int = MOST) -> None:
        self._pool = ThreadPoolExecutor(threads, "reading")
        self._most = most
        self._jobs: set[Future[Any]] = set()  # those under way whose client has left among them

    @property
    def busy(self) -> int:
        """Requests that are read or wait for that."""
        return len(self._jobs)

    async def read(self, work: Callable[[], T], receive: Receive) -> T:
        """Do it on another thread. `receive`: of a request whose body has come.

        Raises what it raises, ClientDisconnect if the client leaves meanwhile, and ApiError (429)
        if too many wait already.
        """
        if len(self._jobs) >= self._most:
            raise ApiError(
                429,
                f"{len(self._jobs)} long requests are being read: try again in a second",
                code="queue_full",
                retry_after=1.0,
            )
        job = self._pool.submit(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        done = asyncio.wrap_future(job)  # cancelled, it cancels the job unless that has begun
        left = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((done, left), return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            raise ClientDisconnect
        finally:
            done.cancel()
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)


async def _left(receive: Receive) -> None:
    """Until the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
