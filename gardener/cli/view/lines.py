"""Lines of a frame: short pieces of text with a style each, cut to the width of the terminal.

A frame is drawn several times a second, so it goes to rich as finished segments: no markup is
parsed and nothing is laid out twice. Text from a peer or a model passes `clean` first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from gardener.runtime.wording import harmless

Line: TypeAlias = list[tuple[str, str]]
"""Pieces of text, each with the name of a rich style; "" is plain."""

BARS = " ▁▂▃▄▅▆▇█"


@cache
def style(name: str) -> Style:
    return Style.parse(name)


def clean(text: str) -> str:
    """`text` without what could steer a terminal or break a line. Tabs and newlines too."""
    return harmless(text, instead="�")


def length(line: Line) -> int:
    """Width in cells."""
    return sum(cell_len(text) for text, _ in line)


def cut(line: Line, width: int) -> Line:
    """At most `width` cells of the line, with an ellipsis where something was left out."""
    if length(line) <= width:
        return line
    kept: Line = []
    left = max(width - 1, 0)
    for text, name in line:
        cells = cell_len(text)
        if cells > left:
            kept.append((set_cell_size(text, left), name))
            break
        kept.append((text, name))
        left -= cells
    return [*kept, ("…", "dim")] if width > 0 else []


def fit(line: Line, width: int) -> Line:
    """Exactly `width` cells: cut, or filled up with spaces."""
    line = cut(line, width)
    missing = width - length(line)
    return [*line, (" " * missing, "")] if missing > 0 else line


def sides(left: Line, right: Line, width: int) -> Line:
    """One part at either edge; where they do not both fit, the right one goes."""
    gap = width - length(left) - length(right)
    return [*left, (" " * gap, ""), *right] if gap >= 1 else cut(left, width)


def rule(title: str, left: Line, right: Line, width: int) -> Line:
    """A heading: `── title ── left ─────── right ──`. What does not fit is left out."""
    head: Line = [("── ", "dim"), (title, "bold"), (" ", "")]
    for part in ([*left, (" ", "")] if left else [], right):
        if part and length(head) + length(part) + 4 <= width:
            room = width - length(head) - length(part) - 4 if part is right else 0
            head += [("─" * room + " " * bool(room), "dim"), *part, (" ", "")]
    return cut([*head, ("─" * max(width - length(head), 0), "dim")], width)


def spark(values: Sequence[float], width: int) -> str:
    """The last `width` values as little bars; the highest is full."""
    shown = list(values)[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    if top <= 0:
        return "▁" * len(shown)
    return "".join(BARS[max(1, round(8 * value / top))] for value in shown)


def bar(share: float) -> str:
    """One cell, filled from below; `share` of 0 to 1."""
    return BARS[max(0, min(8, round(8 * share)))]


def duration(seconds: float) -> str:
    """Short: `0.03 ms`, `4.1 ms`, `12 ms`, `1.4 s`, `3:07`."""
    if seconds < 0.000995:
        return f"{1e3 * seconds:.2f} ms"
    if seconds < 0.00995:
        return f"{1e3 * seconds:.1f} ms"
    if seconds < 0.9995:
        return f"{1e3 * seconds:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def round_trip(seconds: float) -> str:
    """Of a Ping; the clock of the event loop counts whole milliseconds."""
    return duration(seconds) if seconds >= 0.001 else "<1 ms"


def amount(count: float) -> str:
    """Short: `812`, `13.4 k`, `2.1 M`, `7.0 G`; for bytes and the like."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if count >= size:
            return f"{count / (1e3 if unit == ' k' else size):.1f}{unit}"
    return f"{count:.0f} "


def beside(left: Sequence[Line], right: Sequence[Line], width: int, height: int) -> list[Line]:
    """Two columns, the left one `width` cells wide, with a line between."""
    return [
        [
            *fit(left[row] if row < len(left) else [], width),
            (" │ ", "dim"),
            *(right[row] if row < len(right) else []),
        ]
        for row in range(height)
    ]


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole screen. Every line is `width` cells, and there are exactly `height` of them."""

    lines: Sequence[Line]
    width: int
    height: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for row in range(self.height):
            line = self.lines[row] if row < len(self.lines) else []
            for text, name in fit(line, self.width):
                yield Segment(text, style(name))
            if row < self.height - 1:
                yield Segment.line()


def frame(lines: Iterable[Line], width: int, height: int) -> Frame:
    """A screen of these lines. The last column stays empty: some terminals wrap there."""
    return Frame(list(lines), max(width - 1, 0), max(height, 0))
