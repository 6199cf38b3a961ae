"""How far a training run is: a bar on a terminal, or a line now and then where there is none."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

if TYPE_CHECKING:
    from gardener.draft.train.trainer import Progress

OFTEN, SELDOM = 5.0, 60.0
"""The least and the most seconds between two lines; in between, a twentieth of the time passed."""


def summary(left: float, progress: "Progress", what: str) -> str:
    """One line on a run that has `left` seconds to go."""
    parts = [f"{int(left // 60)}:{int(left % 60):02d} left", what]
    if progress.losses:
        parts.append(f"loss {progress.losses[-1][0]:.2f}")
    if progress.curve:
        right = progress.curve[-1][1]
        parts.append(f"right {right[0]:.0%} at depth 1, {right[4]:.0%} at 5")
    return ", ".join(parts)


class Bar(RichProgress):
    """A bar on a terminal."""

    def __init__(self, seconds: float) -> None:
        """`seconds` is all the time that the run has."""
        super().__init__(
            TextColumn("{task.percentage:3.0f}%"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )
        self._seconds = seconds
        self._run = self.add_task("starting", total=seconds)

    def tell(self, seconds: float, progress: "Progress", what: str) -> None:
        """Show how far the run is after `seconds` of work."""
        text = summary(max(self._seconds - seconds, 0), progress, what)
        self.update(self._run, completed=seconds, description=text)


class Lines:
    """Lines for where there is no terminal: when another part of the run begins, and regularly."""

    def __init__(
        self, seconds: float, say: Callable[[str], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        """`seconds` is all the time that the run has."""
        self._seconds, self._say, self._now = seconds, say, now
        self._began = self._next = now()
        self._doing = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """There is nothing to put away."""

    def tell(self, seconds: float, progress: "Progress", what: str) -> None:
        """Say how far the run is after `seconds` of work, if it is time to."""
        doing = what.split(" ", 1)[0]
        now = self._now()
        if now < self._next and doing == self._doing:
            return
        self._next = now + min(max((now - self._began) / 20, OFTEN), SELDOM)
        self._doing = doing
        self._say(summary(max(self._seconds - seconds, 0), progress, what))
