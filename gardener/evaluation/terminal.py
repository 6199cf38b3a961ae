"""What the user sees of an evaluation while it goes on."""

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gardener.evaluation.results import Difference, Failure, Skipped
from gardener.evaluation.tally import MeasuredRun

PAUSE = 30.0
"""Seconds between two lines about the progress if there is no terminal."""


class Teller:
    """Shows the progress: on a terminal as a bar with the time left, elsewhere as a line now and
    then."""

    def __init__(
        self, runs: int, console: Console, note: Callable[[str], None], quiet: bool
    ) -> None:
        """`runs`: the number of answers. `note` gets the lines if there is no bar. `quiet`: show no
        bar even on a terminal."""
        self._note = note
        self._total = runs
        self._done = 0
        self._told = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=2,
            speed_estimate_period=600,  # answers differ in length
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=runs)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line."""
        if self._bar.disable:
            self._note(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False)

    def progress(self, text: str) -> None:
        """Show how far something is that comes before the answers; "" when it is done."""
        if text:
            self._tell(text)

    def ran(self, run: MeasuredRun) -> None:
        self._one_more(f"{run.place}, {run.data}, {run.policy}")

    def expects(self, answers: int) -> None:
        """So many more are going to be asked for."""
        self._total += answers
        self._bar.update(self._task, total=self._total)

    def answered(self, place: str, policy: str, requests: int) -> None:
        """An answer is there, one of several that were asked at once."""
        self._one_more(f"{place}, {requests} requests at once, {policy}")

    def _one_more(self, what: str) -> None:
        self._done += 1
        self._bar.update(self._task, completed=self._done)
        self._tell(what, f"{self._done} of {self._total} answers: ")

    def _tell(self, what: str, before: str = "") -> None:
        """Show it on the bar, or as a line now and then."""
        self._bar.update(self._task, description=what)
        if self._bar.disable and time.monotonic() >= self._told + PAUSE:
            self._told = time.monotonic()
            self._note(f"{before}{what}")

    def skipped(self, what: Skipped, runs: int) -> None:
        self._total -= runs
        self._bar.update(self._task, total=self._total)
        self.say(str(what))

    def differed(self, difference: Difference) -> None:
        self.say(str(difference))

    def failed(self, failure: Failure) -> None:
        self.say(str(failure))
