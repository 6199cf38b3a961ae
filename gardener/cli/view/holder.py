"""The screen of the holder: the ring, the tree, the text. Pure: a picture in, a frame out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.console import RenderableType

from gardener.cli.view.lines import (
    Line,
    bar,
    beside,
    clean,
    cut,
    duration,
    fit,
    frame,
    length,
    round_trip,
    rule,
    sides,
    spark,
)
from gardener.cli.view.text import Piece, messages, tail
from gardener.cli.view.tree import Twig, draw

WIDE = 120
"""Columns from which on the tree and the text stand side by side."""

CHIP = 16
"""Most cells that one segment takes in its lane; a cell is a row while they fit."""

KINDS: tuple[tuple[str, str, str], ...] = (
    ("prompt", "▒", "blue"),
    ("root", "◆", "bold yellow"),
    ("guess", "■", "cyan"),
    ("dead", "□", "dim red"),
)
"""What a row of a segment may be, with its glyph (for terminals without colour) and its style."""


class Moving(NamedTuple):
    """A segment under way: its rows by kind, and about where it is.

    The holder only knows when it was sent; `stage` (from 1) and `progress` (0 to 1, within that
    stage) follow from how long such segments took at each stage lately.
    """

    seq: int
    prompt: int
    root: int
    guesses: int
    dead: int
    stage: int
    progress: float

    @property
    def rows(self) -> int:
        return self.prompt + self.root + self.guesses + self.dead


class Lane(NamedTuple):
    """A stage. `compute` and `wait`: mean seconds of a segment lately; `busy`: share of the time.

    `said`: its last line while a ring of this machine's own starts.
    """

    stage: int
    layers: str = ""
    name: str = ""
    compute: float | None = None
    wait: float | None = None
    busy: float = 0.0
    said: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """How it goes. `rate`: tokens per second lately; `mean`: since the first token."""

    tokens: int = 0
    rate: float = 0.0
    mean: float = 0.0
    rates: tuple[float, ...] = ()
    per_segment: float = 0.0
    first_token: float | None = None
    accepted: int = 0
    missed: int = 0
    rows: int = 0
    wasted: int = 0
    nodes: int = 0
    grown: int = 0
    pruned: int = 0


@dataclass(frozen=True, slots=True)
class HolderPicture:
    """All that the screen shows, taken in one moment. Times in seconds."""

    state: str = "starting"
    trouble: bool = False
    elapsed: float = 0.0
    policy: str = ""
    lanes: tuple[Lane, ...] = ()
    segments: tuple[Moving, ...] = ()
    round_trips: tuple[float | None, float | None] = (None, None)
    twigs: tuple[Twig, ...] = ()
    pruned: tuple[str, ...] = ()
    text: tuple[Piece, ...] = ()
    figures: Figures = field(default_factory=Figures)
    said: tuple[str, ...] = ()


def render(picture: HolderPicture, width: int, height: int) -> RenderableType:
    """The whole screen: exactly `height` lines of less than `width` cells."""
    inner = max(width - 2, 0)  # a margin on the left, and one for the last column
    top = [_title(picture, inner)]
    if picture.policy:
        top += _figures(picture.figures, picture.segments, inner)
    top += [[], *_ring(picture, inner, max(height // 3, 1))]
    rest = max(height - len(top) - 1, 0)
    if not picture.policy:
        lower = _waiting(picture.said, inner, rest)
    elif inner >= WIDE:
        lower = _two_columns(picture, inner, rest)
    else:
        lower = _stacked(picture, inner, rest)
    return frame(([(" ", ""), *line] for line in [*top, [], *lower][:height]), width, height)


# --- the parts -----------------------------------------------------------------------------------


def _title(picture: HolderPicture, width: int) -> Line:
    colour = "bold red" if picture.trouble else "bold green" if picture.policy else "bold yellow"
    left: Line = [("gardener", "bold"), ("  ● ", colour), (clean(picture.state), colour)]
    right: Line = [(f"policy {picture.policy}  ", "")] if picture.policy else []
    trips = [round_trip(each) for each in picture.round_trips if each is not None]
    if trips:
        right += [("links " + " / ".join(trips) + "  ", "dim")]
    right += [(duration(picture.elapsed), "")]
    return sides(left, right, width)


def _figures(figures: Figures, segments: Sequence[Moving], width: int) -> list[Line]:
    first: Line = [
        (f"{figures.rate:5.1f} tokens/s ", "bold"),
        (spark(figures.rates, max(8, min(width - 64, 40))), "green"),
        (f"  mean {figures.mean:.1f}  {figures.tokens} tokens", ""),
        (f"  {figures.per_segment:.2f} a segment", ""),
    ]
    if figures.first_token is not None:
        late = f"  first after {duration(figures.first_token)}"
        first += [(late, "dim")] if length(first) + len(late) <= width else []
    share = 100 * figures.wasted / max(figures.rows, 1)
    flying = sum(each.rows for each in segments)
    second: Line = [
        (f"{figures.accepted} accepted", "green"),
        (f", {figures.missed} missed   ", ""),
        (f"{figures.rows} rows sent, {share:.0f}% wasted   ", ""),
        (f"{len(segments)} in flight, {flying} rows", ""),
    ]
    return [cut(first, width), cut(second, width)]


def _ring(picture: HolderPicture, width: int, most: int) -> list[Line]:
    """A lane for each stage, oldest segment to the right; at most `most` lanes."""
    legend: Line = []
    for kind, glyph, name in KINDS:
        legend += [(glyph, name), (f" {kind} ", "dim")]
    legend[-1] = (legend[-1][0].rstrip(), "dim")
    lines = [rule("ring", [("about where each segment is", "dim")], legend, width)]
    if not picture.lanes:
        return [*lines, [("no stage has answered yet", "dim")]]
    shown = picture.lanes if len(picture.lanes) <= most else picture.lanes[: most - 1]
    heads = [_lane_head(lane, width >= WIDE) for lane in shown]
    widest = max((length(head) for head in heads), default=0)
    for lane, head in zip(shown, heads, strict=True):
        here = [each for each in picture.segments if each.stage == lane.stage]
        room = width - widest - 1
        track = [(clean(lane.said), "dim")] if lane.said else _track(here, room)
        lines.append(cut([*fit(head, widest), (" ", ""), *track], width))
    if len(shown) < len(picture.lanes):
        lines.append([(f"and {len(picture.lanes) - len(shown)} more stages", "dim")])
    return lines


def _lane_head(lane: Lane, wide: bool) -> Line:
    head: Line = [(f"stage {lane.stage:<2}", "bold")]
    if lane.layers:
        head += [(f" {clean(lane.layers):<7}", "dim")]
    if wide and lane.name:
        head += [(f" {clean(lane.name)[:16]:<8}", "")]
    if lane.compute is not None:
        head += [(f" {duration(lane.compute):>7}", "")]
        if wide and lane.wait is not None:
            head += [(f" wait {duration(lane.wait):>7}", "dim")]
        head += [(f" {bar(lane.busy)}", "magenta"), (f"{100 * lane.busy:>4.0f}%", "dim")]
    return head


def _track(segments: Sequence[Moving], width: int) -> Line:
    """The belt of one stage from left to right, with its segments on it."""
    if width < 1:
        return []
    young = sorted(segments, key=lambda segment: -segment.seq)
    chips = [_chip(each, min(CHIP, max(width // 3, 4))) for each in young]
    sizes = [length(chip) for chip in chips]
    hidden = 0  # crowded: the youngest are only counted
    while hidden < len(sizes) and sum(sizes[hidden:]) + len(sizes) + 3 * bool(hidden) > width:
        hidden += 1
    line: Line = [(f"+{hidden:<2}", "dim")] if hidden else []
    at = length(line)
    for number in range(hidden, len(chips)):
        # Where it ought to be; but behind the younger one, and with room for the older ones.
        wanted = round(young[number].progress * (width - sizes[number]))
        latest = width - sum(sizes[number:]) - (len(sizes) - 1 - number)
        start = max(min(wanted, latest), at + bool(number))
        line += [("─" * (start - at), "dim"), *chips[number]]
        at = start + sizes[number]
    return cut([*line, ("─" * max(width - at, 0), "dim")], width)


def _chip(segment: Moving, most: int) -> Line:
    """Its number and its rows; where there are more rows than cells, in proportion."""
    counts = (segment.prompt, segment.root, segment.guesses, segment.dead)
    label = f"{segment.seq} "
    if not segment.rows:
        return [(label, "dim"), ("∅", "dim red")]
    scale = min(1.0, most / segment.rows)
    cells = [max(1, round(count * scale)) if count else 0 for count in counts]
    chip: Line = [(label, "dim")]
    for (_, glyph, name), count in zip(KINDS, cells, strict=True):
        if count:
            chip.append((glyph * count, name))
    return chip


def _stacked(picture: HolderPicture, width: int, height: int) -> list[Line]:
    branches = max(min(height // 3, 10), 1)
    tree = _tree(picture, width, branches + 2)
    said = _last_said(picture, width)
    room = height - len(tree) - 2 - len(said)
    text = tail(picture.text, min(width, 100), max(room, 0))
    return [*tree, [], _text_rule(width), *_padded(text, room), *said]


def _two_columns(picture: HolderPicture, width: int, height: int) -> list[Line]:
    left = (width - 3) // 2
    right = width - 3 - left
    said = _last_said(picture, width)
    room = max(height - len(said), 0)
    tree = _tree(picture, left, min(room, 24))
    text = [_text_rule(right), *tail(picture.text, min(right, 100), room - 1)]
    return [*beside(tree, text, left, room), *said]


def _padded(lines: Sequence[Line], height: int) -> list[Line]:
    return [*lines, *([[]] * max(height - len(lines), 0))]


def _text_rule(width: int) -> Line:
    return rule("text", [], [("guessed", "green"), (" and the model's own", "dim")], width)


def _tree(picture: HolderPicture, width: int, height: int) -> list[Line]:
    """Heading, branches, and what was pruned since the last picture; padded to `height`."""
    figures = picture.figures
    now = f"{figures.nodes} nodes, {figures.grown} grown, {figures.pruned} pruned"
    legend: Line = [("judged", "green"), (" in the ring", "cyan"), (" not sent", "")]
    lines = [rule("tree", [(now, "dim")], legend, width)]
    lines += draw(picture.twigs, width, height - 2)
    lines = _padded(lines, height - 1)
    if picture.pruned:
        cutting: Line = [("✂ ", "red")]
        for text in picture.pruned:
            cutting += [(clean(text), "dim strike red"), ("  ", "")]
        return [*lines, cut(cutting, width)]
    return [*lines, []]


def _last_said(picture: HolderPicture, width: int) -> list[Line]:
    return [
        [(text, "yellow") for text, _ in line] for line in messages(picture.said[-1:], width, 2)
    ]


def _waiting(said: Sequence[str], width: int, height: int) -> list[Line]:
    """What is waited for."""
    if height < 1:
        return []
    return [rule("waiting for", [], [], width), *messages(said, width, height - 1)]
