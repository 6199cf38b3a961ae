"""Let the stages on one machine load and measure one at a time.

Stages that measured themselves together would find each other slow, and the sizes of segments are
decided by what they find. On the cores of one machine, taking turns takes about as long.

The lock is in the cache folder, which services and containers of one machine share, as they do not
share /tmp, where besides anybody could put something of that name.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from gardener.model.checkpoint.resolve import home
from gardener.runtime.wording import printable

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds to wait for one's turn: somebody may be downloading, or was stopped half-way."""


def in_turn(who: str, waits: Callable[[str], None], work: Callable[[], T]) -> T:
    """What `work` returns, run while no other process with this cache folder runs something in
    turn; or after `PATIENCE` all the same. Who has to wait is told for `whom`: the `who` of the
    other process, "" if that is not known."""
    folder = home()
    lock = FileLock(folder / "loading.lock")
    turn = folder / "loading.turn"  # whose it is; the lock itself is truncated
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, turn, waits)
    except (OSError, NotImplementedError, Timeout):  # no lock is no reason not to work
        return work()
    try:
        with contextlib.suppress(OSError):
            turn.write_text(who)
        return work()
    finally:
        with contextlib.suppress(OSError):
            turn.unlink()
        lock.release()


def _acquire(lock: FileLock, turn: Path, waits: Callable[[str], None]) -> None:
    """Raises Timeout, or whatever the file system does not allow."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waits(_whose(turn))
        lock.acquire(timeout=PATIENCE)


def _whose(turn: Path) -> str:
    try:
        return printable(turn.read_text()[:80])
    except (OSError, ValueError):  # it is between two turns, or no text
        return ""
