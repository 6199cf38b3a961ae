"""What the person at the terminal sees of an evaluation: how far it is, and a table at the end."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gardener.evaluation.results import Difference, Failure, Skipped
from gardener.evaluation.tally import BASES, OVERALL, Run

PAUSE = 30.0
"""Seconds between two lines about the progress where there is no terminal."""

LANES = 8
"""Most stages that the table of times has a column for."""


class Teller:
    """Tells how far it is: on a terminal a bar with the time left, elsewhere a line at times."""

    def __init__(
        self, runs: int, console: Console, note: Callable[[str], None], quiet: bool
    ) -> None:
        """`runs`: answers in all. `note`: where lines go if there is no bar. `quiet`: no bar even
        on a terminal."""
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
        """A line of its own."""
        if self._bar.disable:
            self._note(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False)

    def progress(self, text: str) -> None:
        """How far something is that comes before the answers; "" when it is done."""
        if text:
            self._tell(text)

    def ran(self, run: Run) -> None:
        self._done += 1
        what = f"{run.place}, {run.data}, {run.policy}"
        self._bar.update(self._task, completed=self._done)
        self._tell(what, f"{self._done} of {self._total} answers: ")

    def _tell(self, what: str, before: str = "") -> None:
        """On the bar, or as a line at times."""
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


def tables(figures: dict[str, dict[str, Any]], policies: Sequence[str]) -> RenderableType:
    """For each ring the figures by data set, and where the time went."""
    parts: list[RenderableType] = []
    for ring, sets in figures.items():
        if sets:
            parts += ["", _speeds(ring, sets, policies), "", _times(sets, policies)]
    return Group(*parts)


def _speeds(ring: str, sets: dict[str, Any], policies: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, title=ring, title_justify="left")
    bases = [base for base in BASES if base in policies and len(policies) > 1]
    table.add_column("prompts")
    table.add_column("policy")
    for name in ("tokens/s", "end to end", *(f"x {base}" for base in bases)):
        table.add_column(name, justify="right")
    for name in ("tokens/tick", "accepted/seg.", "wasted", "first token"):
        table.add_column(name, justify="right")
    for data, found in sets.items():
        for number, policy in enumerate(policies):
            each = found["policies"][policy]
            ratios = [_number(each["speedup"][base]["mean"], 2) for base in bases]
            table.add_row(
                f"{data} ({found['prompts']})" if not number else "",
                policy,
                _number(each["tokens_per_second"], 1),
                _number(each["end_to_end"], 1),
                *ratios,
                _number(each["tokens_per_tick"], 2),
                _number(each["accepted_per_segment"], 2),
                f"{each['wasted']:.0%}",
                f"{_number(each['first_token'], 2)} s",
            )
    return table


def _times(sets: dict[str, Any], policies: Sequence[str]) -> Table:
    """Of all prompts: the tick, the share of it that each stage computes, what the stages do
    otherwise, on average, and how much of it passes after misses."""
    whole = (sets.get(OVERALL) or next(iter(sets.values())))["policies"]
    table = Table(
        box=None, pad_edge=False, title="where a tick goes: computing", title_justify="left"
    )
    stages = max(len(whole[policy]["tick"]["machines"]) for policy in policies) - 1
    lanes = range(1, min(stages, LANES) + 1)
    table.add_column("policy")
    for name in ("tick", "drafter", *(f"stage {k}" for k in lanes)):
        table.add_column(name, justify="right")
    for name in ("| all stages: computing", "link", "drafting", "waiting", "| after misses"):
        table.add_column(name, justify="right")
    for policy in policies:
        tick = whole[policy]["tick"]
        machines = tick["machines"]
        if not machines or tick["seconds"] is None:
            continue
        sums = [sum(m[part] for m in machines[1:]) / max(len(machines) - 1, 1) for part in _PARTS]
        table.add_row(
            policy,
            f"{tick['seconds'] * 1e3:.1f} ms",
            f"{machines[0]['drafting']:.0%}",
            *(f"{machines[k]['compute']:.0%}" for k in lanes),
            *(f"{each:.0%}" for each in sums),
            f"{tick['missed']:.0%}",
        )
    return table


_PARTS = ("compute", "link", "drafting", "waiting")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
