"""Plays a recording on the screen of the live view."""

from bisect import bisect_right

from rich.segment import Segment, Segments

from gardener.cli.view.holder_frame import draw
from gardener.cli.view.lines import Line, frame, sides, styled
from gardener.cli.view.live import Live
from gardener.cli.view.units import duration
from gardener.watch.recording import Recording

STEP, LEAP = 1, 10.0
"""How far an arrow goes: statuses to the sides, seconds up and down."""

SPEEDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)

HELP: tuple[Line, ...] = (
    [styled("space", "bold"), styled("  hold, and go on")],
    [styled("+ -", "bold"), styled("    faster, slower")],
    [styled("← →", "bold"), styled("    one picture back, forth")],
    [styled("↑ ↓", "bold"), styled(f"    {LEAP:.0f} seconds forth, back")],
    [styled("q", "bold"), styled("      end")],
)


class Player:
    """Where one is in a recording, and how fast it goes on; `live` is its screen."""

    def __init__(self, recording: Recording, speed: float) -> None:
        self._recording, self._speed = recording, speed
        self._at = recording.times[0]
        self._held = False
        self._looked: float | None = None
        self.live = Live(self.take, self._draw, HELP)
        self.live.keys |= {
            " ": self._hold,
            "p": self._hold,
            "+": lambda: self._faster(1),
            "=": lambda: self._faster(1),
            "-": lambda: self._faster(-1),
            "right": lambda: self._step(STEP),
            "left": lambda: self._step(-STEP),
            "up": lambda: self._go(self._at + LEAP),
            "down": lambda: self._go(self._at - LEAP),
        }

    def take(self, now: float) -> int:
        """The index of the status to be shown at `now`."""
        passed = 0.0 if self._looked is None or self._held else now - self._looked
        self._looked = now
        self._go(self._at + passed * self._speed)
        return self._recording.index(self._at)

    def _draw(self, index: int, width: int, height: int) -> Segments:
        picture = draw(self._recording.status(index), width, max(height - 1, 0))
        bar = frame([self._bar(max(width - 2, 0))], width, 1)
        if height < 2:
            return bar
        return Segments([*picture.segments, Segment.line(), *bar.segments])

    def _bar(self, width: int) -> Line:
        at, end = self._at, self._recording.seconds
        mark = "■" if at >= end else "‖" if self._held else "▶"
        left = [
            styled(f"{mark} {_place(at)} of {_place(end)}", "bold"),
            styled(f"  {self._speed:g}×"),
        ]
        keys = "space hold  + - speed  ← → step  q end"
        return sides(left, [styled(keys, "dim")], width)

    def _go(self, at: float) -> None:
        self._at = min(max(at, self._recording.times[0]), self._recording.seconds)

    def _step(self, count: int) -> None:
        times = self._recording.times
        self._held = True
        index = self._recording.index(self._at) + count
        self._at = times[min(max(index, 0), len(times) - 1)]

    def _hold(self) -> None:
        if self._at >= self._recording.seconds:  # once more
            self._at, self._held = self._recording.times[0], False
        else:
            self._held = not self._held

    def _faster(self, steps: int) -> None:
        place = bisect_right(SPEEDS, self._speed) - 1 + steps
        self._speed = SPEEDS[min(max(place, 0), len(SPEEDS) - 1)]


def _place(seconds: float) -> str:
    """In a recording: nobody looks for a millisecond there."""
    return f"{seconds:.1f} s" if seconds < 1 else duration(seconds)
