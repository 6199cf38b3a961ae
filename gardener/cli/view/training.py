"""How far a training run is: a bar on a terminal, or a line now and then where there is none."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from gardener.draft.train.trainer import Progress

OFTEN, SELDOM = 5.0, 60.0
"""Least and most seconds between two lines; else a twentieth of what has passed."""


class Teller(Protocol):
    """Used as a context; `tell` is called often, with the seconds worked in all sessions."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def tell(self, seconds: float, progress: "Progress", what: str) -> None: ...


def summary(left: float, progress: "Progress", what: str) -> str:
    """One line; `left`: seconds."""
    parts = [f"{int(left // 60)}:{int(left % 60):02d} left", what]
    if progress.losses:
        parts.append(f"loss {progress.losses[-1][0]:.2f}")
    if progress.curve:
        right = progress.curve[-1][1]
        parts.append(f"right {right[0]:.0%} at depth 1, {right[4]:.0%} at 5")
    return ", ".join(parts)


class Bar:
    """On a terminal, with the time that is left."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: all that the run has."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._seconds = seconds
        self._bar = Progress(
            TextColumn("{task.percentage:3.0f}%"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("starting", total=seconds)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def tell(self, seconds: float, progress: "Progress", what: str) -> None:
        """Show how far the run is."""
        text = summary(max(self._seconds - seconds, 0), progress, what)
        self._bar.update(self._task, completed=seconds, description=text)


class Lines:
    """Where there is no terminal: when something else begins, and every now and then."""

    def __init__(
        self,
        seconds: float,
        say: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`seconds`: all that the run has."""
        self._seconds, self._say, self._now = seconds, say, now
        self._began = self._next = now()
        self._doing = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """There is nothing to put away."""

    def tell(self, seconds: float, progress: "Progress", what: str) -> None:
        """Say how far the run is, if it is time."""
        doing = what.split(" ", 1)[0]
        now = self._now()
        if now < self._next and doing == self._doing:
            return
        self._next = now + min(max((now - self._began) / 20, OFTEN), SELDOM)
        self._doing = doing
        self._say(summary(max(self._seconds - seconds, 0), progress, what))
