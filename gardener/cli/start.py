"""Where the processes begin and end.

The commands import for seconds, and may be stopped while they do: that ends in a line, not in a
traceback. The end waits for nothing: neither for a thread that still loads a model nor for a
library.
"""

import contextlib
import os
import signal
import sys
import traceback
from importlib import import_module
from types import FrameType

from gardener.cli import streams, terminal


def gardener() -> None:
    """Entry point of `gardener`."""
    _run("gardener.cli.main")


def node() -> None:
    """Entry point of `gardener-node`."""
    _run("gardener.cli.node")


def end_at_once(number: int, frame: FrameType | None = None) -> None:
    """Signal handler: leave now, with the status that a shell gives for the signal."""
    terminal.restore()  # a live view may be on
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(128 + number)


def _run(module: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_at_once)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # `nohup` has it ignored
            signal.signal(number, end_at_once)
    streams.prepare()
    status = 0
    try:
        import_module(module).main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":  # how a local ring starts its stages
    node()
