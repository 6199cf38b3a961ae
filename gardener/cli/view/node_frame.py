"""The screen of a node: what it holds, its links and its work."""

from rich.segment import Segments

from gardener.cli.view.lines import Line, cut, frame, heading, length, sides, styled
from gardener.cli.view.node_status import LinkStatus, NodeStatus, WorkStatus
from gardener.cli.view.text import clean, messages
from gardener.cli.view.units import amount, duration, round_trip, sparkline

WIDEST = 120
"""Columns beyond which lines grow no longer."""

LATE = 1.5
"""Seconds of silence from which on a neighbour is shown in colour; it pings more often."""

HELP: tuple[Line, ...] = (
    [styled("q", "bold"), styled("  end the view; the work goes on")],
    [styled("p", "bold"), styled("  hold the picture, and go on")],
    [styled("h", "bold"), styled("  this, and away with it")],
    [],
    [
        styled("●", "green"),
        styled(" a neighbour is there   "),
        styled("○", "yellow"),
        styled(" not"),
    ],
    [styled("heard", "dim"), styled("  the time since its last byte")],
    [styled("■", "cyan"), styled("  a segment that waits for its turn")],
)
"""What keys do and signs mean."""


def draw(status: NodeStatus, width: int, height: int) -> Segments:
    """The whole screen in exactly `height` lines of less than `width` cells."""
    inner = max(min(width, WIDEST) - 2, 0)  # a margin on the left, and one for the last column
    colour = "bold green" if status.ready else "bold yellow"
    title = styled(f"gardener-node  stage {status.stage}", "bold")
    state = styled(f"  ● {clean(status.state)}", colour)
    lines = [sides([title, state], [styled(f"up {duration(status.uptime)}")], inner)]
    if status.holds:
        lines.append(cut([styled(clean(status.holds))], inner))
    lines += [
        [],
        heading("links", inner),
        _link("upstream", status.upstream, f"nobody yet, listening at {status.listening}", inner),
        _link("downstream", status.downstream, f"not connected to {status.peer} yet", inner),
    ]
    if status.work is not None:
        lines += [[], heading("work", inner), *_work(status.work, inner)]
    room = height - len(lines) - 2
    lines += [[], heading("messages", inner), *messages(status.said, inner, room)]
    return frame(lines, width, height)


def _link(side: str, link: LinkStatus | None, absent: str, width: int) -> Line:
    name = styled(f"{side:<11}", "bold")
    if link is None:
        return cut([styled("○ ", "yellow"), name, styled(clean(absent), "yellow")], width)
    where = [styled("● ", "green"), name, styled(clean(link.to))]
    if link.name and width >= 110:
        where.append(styled(f"  {clean(link.name)[:24]}", "dim"))
    heard, trip = f"{duration(link.heard)} ago", ""
    if link.round_trip is not None:
        trip = round_trip(link.round_trip)
    received, sent = f"{amount(link.received)}B", f"{amount(link.sent)}B"
    late = "yellow" if link.heard > LATE else "dim"
    rest = f"  round trip {trip}" * bool(trip) + f"  in {received}, out {sent}"
    right = [styled(f"heard {heard}", late), styled(rest, "dim")]
    if length(where) + length(right) + 2 > width:  # say it with fewer words
        rest = f"  {trip}" * bool(trip) + "  " + f"↓{received}↑{sent}".replace(" ", "")
        right = [styled(heard, late), styled(rest, "dim")]
    return sides(where, right, width)


def _work(work: WorkStatus, width: int) -> list[Line]:
    queue, waiting = [styled("empty", "dim")], work.waiting
    if waiting:
        bars = "■" * min(waiting, max(min(width - 40, 40), 1))
        queue = [styled(bars, "cyan"), styled(f"  {waiting} segment{'s' * (waiting > 1)}")]
    requests = f"{work.requests or 'no'} request{'s' * (work.requests > 1)} open"
    speed = styled(f"rows/s     {work.rows_per_second:<8.1f}", "bold")
    rates = styled(sparkline(work.rates, max(width - 50, 8)), "cyan")
    mean, each = "none lately", ""
    if work.forward is not None:
        mean = duration(work.forward)
        each = f"{work.rows_per_forward:.1f} rows each, busy {100 * work.busy:.0f}%"
    share = 100 * work.dropped / max(work.rows + work.dropped, 1)
    computed = f"{amount(work.forwards)}forwards, {amount(work.rows)}rows computed, "
    dropped = f"{amount(work.dropped)}dropped in time ({share:.0f}%)"
    totals = [styled(computed), styled(dropped, "red" if work.dropped else "")]
    return [
        sides([styled("queue      ", "bold"), *queue], [styled(requests, "dim")], width),
        sides([speed, rates], [styled("one bar a second", "dim")], width),
        cut([styled(f"forward    {mean:<8}", "bold"), styled(each)], width),
        cut([styled("all        ", "bold"), *totals], width),
    ]
