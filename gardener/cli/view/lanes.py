"""The ring as lanes, one for each stage, with the segments that move through it."""

from collections.abc import Sequence

from rich.segment import Segment

from gardener.cli.view.lines import Line, cut, heading, length, styled
from gardener.cli.view.text import clean
from gardener.cli.view.units import duration, gauge
from gardener.watch.status import HolderStatus, MovingSegment, StageStatus

CHIP = 16
"""The most cells that one segment takes; a cell is a row as long as the rows fit."""

KINDS = (
    ("prompt", "▒", "blue"),
    ("root", "◆", "bold yellow"),
    ("guess", "■", "cyan"),
    ("dead", "□", "dim red"),
)
"""The kinds of rows in a segment, with a glyph (for terminals without colour) and a style."""


def lanes(status: HolderStatus, width: int, most: int, named: bool) -> list[Line]:
    """A heading and at most `most` lanes; `named` ones show machine and waiting time too."""
    legend = [part for kind in KINDS for part in (styled(*kind[1:]), styled(f" {kind[0]} ", "dim"))]
    legend[-1] = styled(" dead", "dim")
    several = any(each.request != status.request for each in status.segments)
    details = "dim: other requests" if several else "about where each segment is"
    lines = [heading("ring", width, details, legend)]
    if not status.stages:
        return [*lines, [styled("no stage has answered yet", "dim")]]
    shown = status.stages if len(status.stages) <= most else status.stages[: most - 1]
    heads = [_head(stage, named) for stage in shown]
    widest = max(map(length, heads), default=0)
    for stage, head in zip(shown, heads, strict=True):
        track = [styled(clean(stage.said), "dim")]
        if not stage.said:
            here = [each for each in status.segments if each.stage == stage.stage]
            track = _track(here, width - widest - 1, status.request)
        lines.append(cut([*Segment.adjust_line_length(head, widest + 1), *track], width))
    if len(shown) < len(status.stages):
        lines.append([styled(f"and {len(status.stages) - len(shown)} more stages", "dim")])
    return lines


def _head(stage: StageStatus, named: bool) -> Line:
    head = [styled(f"stage {stage.stage:<2}", "bold")]
    if stage.layers:
        head.append(styled(f" {clean(stage.layers):<7}", "dim"))
    if named and stage.name:
        head.append(styled(f" {clean(stage.name)[:16]:<8}"))
    if stage.compute is not None:
        head.append(styled(f" {duration(stage.compute):>7}"))
        if named and stage.wait is not None:
            head.append(styled(f" wait {duration(stage.wait):>7}", "dim"))
        head.append(styled(f" {gauge(stage.busy)}", "magenta"))
        head.append(styled(f"{100 * stage.busy:>4.0f}%", "dim"))
    return head


def _track(segments: Sequence[MovingSegment], width: int, request: int) -> Line:
    """The way through one stage, from left to right, with the oldest segment foremost. Those of
    other requests than `request` are dim."""
    if width < 1:
        return []
    youngest_first = sorted(segments, key=lambda segment: (segment.progress, -segment.seq))
    most = min(CHIP, max(width // 3, 4))
    chips = [_chip(each, most, own=each.request == request) for each in youngest_first]
    sizes = [length(chip) for chip in chips]
    hidden = 0  # where they do not all fit, the youngest are only counted
    while hidden < len(sizes) and sum(sizes[hidden:]) + len(sizes) + 3 * bool(hidden) > width:
        hidden += 1
    line = [styled(f"+{hidden:<2}", "dim")] if hidden else []
    at = length(line)
    for number in range(hidden, len(chips)):
        # As far as it has come, but behind the younger one and with room for the older ones.
        wanted = round(youngest_first[number].progress * (width - sizes[number]))
        latest = width - sum(sizes[number:]) - (len(sizes) - 1 - number)
        start = max(min(wanted, latest), at + bool(number))
        line += [styled("─" * (start - at), "dim"), *chips[number]]
        at = start + sizes[number]
    return cut([*line, styled("─" * max(width - at, 0), "dim")], width)


def _chip(segment: MovingSegment, most: int, own: bool) -> Line:
    """A segment's number, or that of its request, and its rows, in proportion where there are more
    rows than cells."""
    counts = (segment.prompt, segment.root, segment.guesses, segment.dead)
    label = styled(f"{segment.seq} " if own else f"#{segment.request} ", "dim")
    if not segment.rows:
        return [label, styled("∅", "dim red")]
    scale = min(1.0, most / segment.rows)
    return [
        label,
        *(
            styled(glyph * max(1, round(count * scale)), style if own else "dim")
            for (_, glyph, style), count in zip(KINDS, counts, strict=True)
            if count
        ),
    ]
