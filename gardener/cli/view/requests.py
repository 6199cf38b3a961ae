"""The requests besides the one that is shown large, a line each."""

from collections.abc import Sequence

from rich.segment import Segment

from gardener.cli.view.lines import Line, cut, heading, length, styled
from gardener.cli.view.text import clean
from gardener.cli.view.units import duration
from gardener.watch.status import RequestLine

STATES = {"writing": "green", "reading": "blue", "waiting": "dim"}

LEFT_OUT_FIRST = ("policy", "mean", "prompt", "age")
"""Columns that go, in this order, where the lines have not the room for all."""

CLOSE = ("number", "state")
"""Columns after which there is one space, not two."""


def lines(others: Sequence[RequestLine], width: int, height: int) -> list[Line]:
    """A heading and a line for each that runs, in at most `height` lines; those that wait, and
    those for which there is no room, are counted. Nothing if there are no others."""
    running = [each for each in others if each.state != "waiting"]
    if not others or height < 1:
        return []
    waiting = len(others) - len(running)
    counts = [f"{len(running)} more run{'s' * (len(running) == 1)}"] if running else []
    counts += [f"{waiting} wait{'s' * (waiting == 1)}"] if waiting else []
    room = height - 1
    shown = running if len(running) <= room else running[: max(room - 1, 0)]
    found = [heading("requests", width, ", ".join(counts)), *_table(shown, width)]
    if len(shown) < len(running) and room > 0:
        found.append([styled(f"and {len(running) - len(shown)} more", "dim")])
    return [cut(line, width) for line in found]


def _table(shown: Sequence[RequestLine], width: int) -> list[Line]:
    """A line each, with as many columns as there is room for."""
    rows = [_cells(each) for each in shown]
    names = list(rows[0]) if rows else []
    widths = {name: max(length([row[name]]) for row in rows) for name in names}
    for name in LEFT_OUT_FIRST:
        if not rows or sum(widths[each] + len(_gap(each)) for each in names) <= width + 2:
            break
        names.remove(name)
    return [
        [
            part
            for each in names
            for part in (
                *Segment.adjust_line_length([row[each]], widths[each]),
                styled(_gap(each)),
            )
        ][:-1]
        for row in rows
    ]


def _gap(name: str) -> str:
    """What follows a column."""
    return " " if name in CLOSE else "  "


def _cells(request: RequestLine) -> dict[str, Segment]:
    writing = request.state == "writing"
    return {
        "number": styled(f"#{request.number}", "bold"),
        "state": styled(request.state, STATES[request.state]),
        "policy": styled(clean(request.policy)),
        "rate": styled(f"{request.rate:5.1f} tokens/s" if writing else "", "bold"),
        "mean": styled(f"mean {request.mean:.1f}" if writing else ""),
        "tokens": styled(f"{request.tokens} tokens" if writing else ""),
        "prompt": styled(f"prompt {request.prompt}", "dim"),
        "age": styled(duration(request.elapsed), "dim"),
    }
