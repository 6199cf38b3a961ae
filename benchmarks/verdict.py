"""Count the calls that one verdict takes at the holder, in a real ring of this machine.

Runs a `gardener` command in this process and traces its event loop. A callback counts if a verdict
is handed on in it: from its first function to its last, the functions of the package alone.
Imports nothing of the package by name, so it can trace an older checkout as well.

Called by `python -m benchmarks.house`; by hand, for a folder that is on PYTHONPATH:
`python benchmarks/verdict.py FOLDER generate "Why is the sky blue?" --local 3 ...`.
"""

import asyncio
import json
import os
import statistics
import sys
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

LOOP = str(Path(asyncio.__file__).parent)
CORES = set(range(16))
FIGURES = ("calls", "files", "changes_of_file")


@dataclass
class Callback:
    """One callback of the event loop: the file of every function called in it, in order."""

    first: FrameType
    files: list[str] = field(default_factory=list)
    has_verdict: bool = False

    def enter(self, frame: FrameType) -> None:
        """Count a call, and look for a verdict among its arguments."""
        code = frame.f_code
        self.files.append(code.co_filename)
        if not self.has_verdict:
            names = code.co_varnames[: code.co_argcount]
            self.has_verdict = any(
                type(frame.f_locals.get(name)).__name__ == "Verdict" for name in names
            )

    @property
    def figures(self) -> tuple[int, int, int]:
        """Calls, files, and how often a call is in another file than the call before it."""
        changes = sum(one != other for one, other in pairwise(self.files))
        return len(self.files), len(set(self.files)), changes


class Tracer:
    """A profile function for `sys.setprofile`: collects the callbacks that brought a verdict."""

    def __init__(self, package: Path) -> None:
        self.found: list[tuple[int, int, int]] = []
        self._prefix = f"{package}{os.sep}"
        self._current: Callback | None = None

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event not in ("call", "return"):
            return
        if not frame.f_code.co_filename.startswith(self._prefix):
            return
        if event == "return":
            self._leave(frame)
            return
        caller = frame.f_back
        if caller is not None and caller.f_code.co_filename.startswith(LOOP):
            self._current = Callback(frame)
        if self._current is not None:
            self._current.enter(frame)

    def _leave(self, frame: FrameType) -> None:
        current = self._current
        if current is not None and current.first is frame:
            self._current = None
            if current.has_verdict:
                self.found.append(current.figures)


def trace(folder: Path, command: list[str]) -> dict[str, Any]:
    """Run the command in this process; medians and means over its verdicts.

    The process is told that there are cores for everybody: older checkouts chose another policy
    where the stages share cores.
    """
    if hasattr(os, "sched_getaffinity"):
        os.sched_getaffinity = lambda process: CORES
    tracer = Tracer(folder.resolve() / "gardener")
    main = import_module("gardener.cli.main").main
    sys.argv = ["gardener", *command]
    sys.setprofile(tracer)
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.setprofile(None)
    columns = dict(zip(FIGURES, zip(*tracer.found, strict=True), strict=True))
    return {
        "verdicts": len(tracer.found),
        "median": {name: statistics.median(each) for name, each in columns.items()},
        "mean": {name: round(statistics.fmean(each), 1) for name, each in columns.items()},
    }


if __name__ == "__main__":
    print(json.dumps(trace(Path(sys.argv[1]), sys.argv[2:])))
