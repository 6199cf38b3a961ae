"""The screen of a node: what it holds, its links, its work. Pure: a picture in, a frame out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import RenderableType

from gardener.cli.view.lines import (
    Line,
    amount,
    clean,
    cut,
    duration,
    frame,
    length,
    round_trip,
    rule,
    sides,
    spark,
)
from gardener.cli.view.text import messages

WIDEST = 120
"""Columns beyond which lines grow no longer."""

LATE = 1.5
"""Seconds without a byte from a neighbour from which on that is shown in colour: it pings oftener
than that, and is lost soon after."""


class Connection(NamedTuple):
    """A link to a neighbour. `heard`: seconds since its last byte; `received`, `sent`: bytes."""

    to: str
    name: str = ""
    heard: float = 0.0
    round_trip: float | None = None
    received: int = 0
    sent: int = 0


class Work(NamedTuple):
    """What a node does. Rates are those of the last seconds; times in seconds."""

    waiting: int = 0  # segments that came and have not left
    requests: int = 0  # open now
    rows_per_second: float = 0.0
    curve: tuple[float, ...] = ()  # rows per second
    forward: float | None = None  # seconds of one forward pass
    rows_per_forward: float = 0.0
    busy: float = 0.0  # share of the time
    forwards: int = 0  # since the start, as all below
    rows: int = 0
    dropped: int = 0  # rows that were dead when their turn came


@dataclass(frozen=True, slots=True)
class NodePicture:
    """All that the screen shows, taken in one moment."""

    stage: int
    state: str = "loading"
    holds: str = ""
    uptime: float = 0.0
    listening: str = ""
    peer: str = ""
    upstream: Connection | None = None
    downstream: Connection | None = None
    work: Work | None = None
    said: tuple[str, ...] = ()
    ready: bool = False


def render(picture: NodePicture, width: int, height: int) -> RenderableType:
    """The whole screen: exactly `height` lines of less than `width` cells."""
    inner = max(min(width, WIDEST) - 2, 0)  # a margin on the left, and one for the last column
    colour = "bold green" if picture.ready else "bold yellow"
    left: Line = [
        ("gardener-node  ", "bold"),
        (f"stage {picture.stage}", "bold"),
        ("  ● ", colour),
        (clean(picture.state), colour),
    ]
    lines = [sides(left, [(f"up {duration(picture.uptime)}", "")], inner)]
    lines += [cut([(clean(picture.holds), "")], inner), []] if picture.holds else [[]]
    lines += _links(picture, inner)
    if picture.work is not None:
        lines += [[], *_work(picture.work, inner)]
    lines += [[], *_messages(picture.said, inner, height - len(lines) - 1)]
    return frame(([(" ", ""), *line] for line in lines[: max(height, 0)]), width, height)


def _links(picture: NodePicture, width: int) -> list[Line]:
    return [
        rule("links", [], [], width),
        _link("upstream", picture.upstream, f"nobody yet, listening at {picture.listening}", width),
        _link("downstream", picture.downstream, f"not connected to {picture.peer} yet", width),
    ]


def _link(side: str, link: Connection | None, absent: str, width: int) -> Line:
    if link is None:
        return cut([("○ ", "yellow"), (f"{side:<11}", "bold"), (clean(absent), "yellow")], width)
    where: Line = [("● ", "green"), (f"{side:<11}", "bold"), (clean(link.to), "")]
    if link.name and width >= 110:
        where.append((f"  {clean(link.name)[:24]}", "dim"))
    parts = [f"heard {duration(link.heard)} ago"]
    if link.round_trip is not None:
        parts.append(f"round trip {round_trip(link.round_trip)}")
    parts.append(f"in {amount(link.received)}B, out {amount(link.sent)}B")
    if length(where) + sum(map(len, parts)) + 8 > width:  # say it with fewer words
        parts = [part.replace("heard ", "").replace("round trip ", "") for part in parts]
        parts[-1] = f"↓{amount(link.received)}B ↑{amount(link.sent)}B".replace(" ", "")
    late = "yellow" if link.heard > LATE else "dim"
    return sides(where, [(parts[0], late), ("  " + "  ".join(parts[1:]), "dim")], width)


def _work(work: Work, width: int) -> list[Line]:
    queue: Line = [("queue      ", "bold"), *_queue(work.waiting, min(width - 40, 40))]
    open_now = f"{work.requests or 'no'} request{'s' * (work.requests > 1)} open"
    speed: Line = [
        ("rows/s     ", "bold"),
        (f"{work.rows_per_second:<8.1f}", "bold"),
        (spark(work.curve, max(width - 50, 8)), "cyan"),
    ]
    mean = "none lately" if work.forward is None else duration(work.forward)
    forward: Line = [("forward    ", "bold"), (f"{mean:<8}", "bold")]
    if work.forward is not None:
        forward.append((f"{work.rows_per_forward:.1f} rows each, busy {100 * work.busy:.0f}%", ""))
    share = 100 * work.dropped / max(work.rows + work.dropped, 1)
    totals: Line = [
        ("all        ", "bold"),
        (f"{amount(work.forwards)}forwards, {amount(work.rows)}rows computed, ", ""),
        (f"{amount(work.dropped)}dropped in time ({share:.0f}%)", "red" if work.dropped else ""),
    ]
    lines = [sides(queue, [(open_now, "dim")], width)]
    lines += [sides(speed, [("one bar a second", "dim")], width), forward]
    return [rule("work", [], [], width), *(cut(line, width) for line in [*lines, totals])]


def _queue(waiting: int, room: int) -> Line:
    if not waiting:
        return [("empty", "dim")]
    more = f"  {waiting} segments" if waiting > 1 else "  1 segment"
    return [("■" * min(waiting, max(room, 1)), "cyan"), (more, "")]


def _messages(said: Sequence[str], width: int, height: int) -> list[Line]:
    """The last lines that this node had to say."""
    if height < 2:
        return []
    return [rule("messages", [], [], width), *messages(said, width, height - 1)]
