"""Lines of a frame, made of rich's segments.

A frame is drawn several times a second. Lines of finished segments take a fraction of the time of
rich's `Layout`, `Table` or `Text`, since nothing in them is measured or wrapped again.
"""

from collections.abc import Sequence
from typing import TypeAlias

from rich.segment import Segment, Segments
from rich.style import Style

Line: TypeAlias = list[Segment]

length = Segment.get_line_length


def styled(text: str, style: str = "") -> Segment:
    """A piece of a line in a style of rich."""
    return Segment(text, Style.parse(style))


def cut(line: Line, width: int) -> Line:
    """The line in at most `width` cells, with an ellipsis where something was left out."""
    if length(line) <= width:
        return line
    if width < 1:
        return []
    return [*Segment.adjust_line_length(line, width - 1), styled("…", "dim")]


def sides(left: Line, right: Line, width: int, fill: str = " ") -> Line:
    """One part at either edge; the right one is left out where they do not both fit."""
    gap = width - length(left) - length(right)
    if gap < 1:
        right, gap = [], max(width - length(left), 0)
    return cut([*left, styled(fill * gap, "dim"), *right], width)


def heading(title: str, width: int, details: str = "", legend: Line | None = None) -> Line:
    """A line such as `── title details ─────── legend ──`; what does not fit is left out."""
    left = [styled("── ", "dim"), styled(f"{title} ", "bold")]
    if details and length(left) + len(details) + 1 <= width:
        left.append(styled(f"{details} ", "dim"))
    right = [styled(" "), *legend, styled(" ──", "dim")] if legend else []
    return sides(left, right, width, "─")


def columns(left: list[Line], right: list[Line], width: int, height: int) -> list[Line]:
    """Two columns with a bar between them, the left one `width` cells wide."""
    bar = styled(" │ ", "dim")
    shaped = Segment.set_shape(left[:height], width, height)
    missing: list[Line] = [[]] * (height - len(right))
    return [[*a, bar, *b] for a, b in zip(shaped, [*right, *missing], strict=False)]


def frame(lines: Sequence[Line], width: int, height: int) -> Segments:
    """A whole screen of exactly `height` lines, with a margin on the left.

    The last column stays empty, since some terminals begin a new line there.
    """
    margin, end = styled(" "), Segment.line()
    shaped = Segment.set_shape([[margin, *line] for line in lines[:height]], width - 1, height)
    return Segments([segment for line in shaped for segment in (*line, end)][:-1])
