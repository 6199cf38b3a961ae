"""Word of a pass that takes long, so that the holder can tell a stage that is slow from one that is
stuck: the event loop is free while the worker thread computes, and links live on in both cases."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gardener.protocol.messages import microseconds
from gardener.protocol.reports import Busy
from gardener.runtime import clock
from gardener.stages.batch import Batch
from gardener.stages.computes import Computes

LONG = 2.0
"""Seconds after which a pass is told, and between two words of it."""


def long_pass(number: int, stage: Computes, batch: Batch | None) -> Busy | None:
    """What to tell of what stage `number` computes now; None: nothing, or not for long yet."""
    if batch is None or (seconds := clock.now() - batch.since) < LONG:
        return None
    first = batch.entries[0].segment
    return Busy(number, first.request, first.seq, stage.layer, microseconds(seconds))


@contextmanager
def every(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Inside, `work` is done that often, on the running loop."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def again() -> None:
        nonlocal timer
        timer = loop.call_later(seconds, again)
        work()

    timer = loop.call_later(seconds, again)
    try:
        yield
    finally:
        timer.cancel()
