"""The runtime (C++), and closures that are queued on its streams."""

import ctypes
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_library = ctypes.CDLL(None)  # it has been loaded before anything else
_library.stand_in_push.argtypes = [ctypes.c_void_p, ctypes.c_long]
_library.stand_in_forgotten.restype = ctypes.c_long
_Called = ctypes.CFUNCTYPE(None, ctypes.c_long)

_FAILED = 77
"""Status of a process in which the work of a kernel failed."""

_debug = bool(os.environ.get("STAND_IN_DEBUG"))
_closures: dict[int, tuple[Callable[[], Any], str]] = {}
_numbers = itertools.count(1)


class NotImitated(Exception):
    """The values of an operation are not known here. It is none of torch's errors, lest somebody
    takes it for a device that lacks something, and goes on without."""


def push(work: Callable[[], Any], what: str) -> None:
    """Do it when it is its turn in the current stream; or whenever the graph is launched that is
    being captured there."""
    while number := _library.stand_in_forgotten():
        del _closures[number]
    if _debug:
        what += "\n" + "".join(traceback.format_stack(limit=14)[:-2])
    number = next(_numbers)
    _closures[number] = work, what
    if error := _library.stand_in_push(torch.cuda.current_stream().cuda_stream, number):
        raise RuntimeError(f"CUDA error {error} in {what}")


@_Called  # type: ignore[untyped-decorator]
def _call(number: int) -> None:
    """From whichever thread waits. What fails here ends the process: an exception would go nowhere,
    and values would be wrong."""
    work, what = _closures[number]
    try:
        with torch.inference_mode(), torch._C._DisableTorchDispatch():
            work()
    except BaseException:
        sys.stderr.write(f"stand-in: the work of a kernel failed: {what}\n{traceback.format_exc()}")
        sys.stderr.flush()
        os._exit(_FAILED)


_library.stand_in_calls(_call)


@contextmanager
def seen() -> Iterator[None]:
    """Kernels that are launched meanwhile have their values queued."""
    before = _library.stand_in_sees(1)
    try:
        yield
    finally:
        _library.stand_in_sees(before)


def illegal() -> int:
    """Calls of this process so far that CUDA would have refused."""
    return int(_library.stand_in_illegal())


def launched() -> int:
    """Graphs that this process has launched so far."""
    return int(_library.stand_in_launched())


def kernels() -> int:
    """Kernels that this process has launched so far, graphs apart."""
    return int(_library.stand_in_kernels())
