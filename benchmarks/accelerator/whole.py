"""A run: its parts, one after the other, and what came of them."""

import argparse
import os
import signal
import sys
import time
import traceback
from types import FrameType

from rich.console import Console

from benchmarks.accelerator.budget import Budget
from benchmarks.accelerator.parts import PARTS, WEIGHTS, Asked
from benchmarks.accelerator.report import Report
from benchmarks.accelerator.tables import WIDE, show
from benchmarks.machine import machine
from gardener.errors import reason

SHORT = 2
"""Tokens of each text in a quick run, and prompts."""


def run(given: argparse.Namespace, begin: float) -> None:
    """All that is asked for. `begin`: when it began, on the monotonic clock."""
    signal.signal(signal.SIGTERM, _stopped)
    whole = Budget(given.seconds - (time.monotonic() - begin))
    asked = Asked(given.device, given.model, given.data, given.quick)
    if given.quick:
        asked = Asked(given.device, given.model, given.data, True, 4 * SHORT, SHORT)
    about = {"machine": machine(), "device": given.device, "quick": given.quick}
    report = Report(about, given.json)
    try:
        report.save()  # what cannot be written is not worth measuring first
    except OSError as error:
        sys.exit(f"error: --json {given.json}: {reason(error)}: name a file that can be written")
    try:
        measure(asked, given.parts, whole, report)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    finally:
        show(report, Console(width=None if sys.stdout.isatty() else WIDE))
        report.save()


def measure(asked: Asked, parts: list[str], whole: Budget, report: Report) -> None:
    """Each of the parts with what is due to it of what the others have left."""
    for number, part in enumerate(parts):
        report.left_out[part] = []
        budget = whole.share(WEIGHTS[part], sum(WEIGHTS[each] for each in parts[number:]))
        print(f"{part}: {budget.seconds:.0f} s at most", file=sys.stderr, flush=True)
        try:
            PARTS[part](asked, budget, report)
        except Exception as error:  # the other parts shall still be measured
            traceback.print_exc()
            report.left_out[part].append(f"the rest: {type(error).__name__}: {error}")
        finally:
            report.seconds[part] = budget.spent
            report.save()


def _stopped(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C does: what was begun is ended, and what was found is shown."""
    signal.signal(number, lambda *again: os._exit(128 + number))
    raise KeyboardInterrupt
