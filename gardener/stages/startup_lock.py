"""Let the stages on one machine load and measure one at a time.

Stages that measured themselves together would find each other slow, and the sizes of segments are
decided by what they find. On the cores of one machine, taking turns takes about as long.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from filelock import FileLock, Timeout

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 10.0
"""Seconds to wait for one's turn: somebody may be downloading, or was stopped half-way."""


def in_turn(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, run while no other process of this user on this machine runs something
    in turn; or after `PATIENCE` all the same."""
    lock = FileLock(Path(tempfile.gettempdir()) / f"gardener-{os.getuid()}.lock")
    try:
        lock.acquire(timeout=PATIENCE)
    except (OSError, NotImplementedError, Timeout):  # no lock is no reason not to work
        return work(*args, **kwargs)
    try:
        return work(*args, **kwargs)
    finally:
        lock.release()
