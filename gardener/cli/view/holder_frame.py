"""The screen of a holder: the ring, the token tree and the text."""

from collections.abc import Sequence

from rich.segment import Segments

from gardener.cli.view import requests, tree
from gardener.cli.view.lanes import lanes
from gardener.cli.view.lines import Line, columns, cut, frame, heading, length, sides, styled
from gardener.cli.view.text import clean, messages, tail
from gardener.cli.view.units import duration, round_trip, sparkline
from gardener.watch.status import AnswerFigures, HolderStatus, MovingSegment

WIDE = 120
"""Columns from which on the tree and the text stand side by side."""

MOST_TEXT = 100
"""Columns beyond which the text is not set wider."""

HELP: tuple[Line, ...] = (
    [styled("q", "bold"), styled("  end the view; the work goes on")],
    [styled("p", "bold"), styled("  hold the picture, and go on")],
    [styled("h", "bold"), styled("  this, and away with it")],
    [],
    [styled("in the lanes, a segment: its number and its rows")],
    [styled("▒", "blue"), styled(" of the prompt   "), styled("◆", "bold yellow"), styled(" root")],
    [styled("■", "cyan"), styled(" a guess         "), styled("□", "dim red"), styled(" dead")],
    [styled("#2 ■■", "dim"), styled("       of another request, by its number")],
    [styled("▃", "magenta"), styled(" 34%           of the time the stage computes")],
    [],
    [styled("in the tree, where the target model is with a node")],
    [styled("judged", "green"), styled("  in the ring", "cyan"), styled("  not sent")],
    [styled("●", "bold yellow"), styled(" root    "), styled("✂", "red"), styled(" pruned lately")],
    [],
    [styled("in the text"), styled("  guessed", "green"), styled("  and the model's own")],
)
"""What keys do and signs mean."""


def draw(status: HolderStatus, width: int, height: int) -> Segments:
    """The whole screen in exactly `height` lines of less than `width` cells."""
    inner = max(width - 2, 0)  # a margin on the left, and one for the last column
    lines = [_title(status, inner)]
    if status.policy:
        lines += _figures(status.figures, status.segments, inner)
    lines += [[], *lanes(status, inner, max(height // 3, 1), named=inner >= WIDE), []]
    rest = max(height - len(lines), 0)
    if not status.policy:
        title = "messages" if status.address else "waiting for"
        lines += [heading(title, inner), *messages(status.said, inner, rest - 1)]
    else:
        said = messages(status.said[-1:], inner, 2, newest="yellow")
        lower = _side_by_side if inner >= WIDE else _stacked
        lines += [*lower(status, inner, max(rest - len(said), 0)), *said]
    return frame(lines, width, height)


def _title(status: HolderStatus, width: int) -> Line:
    colour = "bold red" if status.trouble else "bold green" if status.policy else "bold yellow"
    left = [styled("gardener", "bold")]
    if status.address:
        left.append(styled(f"  {clean(status.address)}"))
    left.append(styled(f"  ● {clean(status.state)}", colour))
    if status.others:
        left.append(styled(f"  #{status.request}"))
    right = [styled(duration(status.elapsed))]
    trips = [round_trip(each) for each in status.round_trips if each is not None]
    links = styled(f"links {' / '.join(trips)}  ", "dim") if trips else styled("")
    policy = styled(f"policy {clean(status.policy)}  ") if status.policy else styled("")
    for more in ([policy, links], [policy]):
        if length(left) + length(more) + length(right) < width:
            right = [*more, *right]
            break
    return sides(left, right, width)


def _figures(figures: AnswerFigures, segments: Sequence[MovingSegment], width: int) -> list[Line]:
    counts = figures.counts
    first = [
        styled(f"{figures.rate:5.1f} tokens/s ", "bold"),
        styled(sparkline(figures.rates, max(8, min(width - 64, 40))), "green"),
        styled(f"  mean {figures.mean:.1f}  {counts.emitted} tokens"),
        styled(f"  {counts.emitted / max(counts.segments, 1):.2f} a segment"),
    ]
    more = [f"  plain about {figures.plain:.1f}"] if figures.plain else []
    if figures.first_token is not None:
        more.append(f"  first after {duration(figures.first_token)}")
    for each in more:
        first += [styled(each, "dim")] if length(first) + len(each) <= width else []
    share = 100 * counts.wasted / max(counts.rows, 1)
    flying = sum(each.rows for each in segments)
    second = [
        styled(f"{counts.accepted} accepted", "green"),
        styled(f", {counts.missed} missed   "),
        styled(f"{counts.rows} rows sent, {share:.0f}% wasted   "),
        styled(f"{len(segments)} in flight, {flying} rows"),
    ]
    return [cut(first, width), cut(second, width)]


def _stacked(status: HolderStatus, width: int, height: int) -> list[Line]:
    others = requests.lines(status.others, width, height // 3)
    above = [*others, []] if others else []
    rest = height - len(above)
    above += _tree(status, width, max(min(round(rest / 3), 10), 1) + 2)
    return [*above, [], *_text(status, width, height - len(above) - 1)]


def _side_by_side(status: HolderStatus, width: int, height: int) -> list[Line]:
    left = (width - 3) // 2
    text = _text(status, width - 3 - left, height)
    others = requests.lines(status.others, left, height // 2)
    above = [*others, []] if others else []
    above += _tree(status, left, min(height - len(above), 24))
    return columns(above, text, left, height)


def _text(status: HolderStatus, width: int, height: int) -> list[Line]:
    """A heading and the end of the text, in exactly `height` lines if that is at least one."""
    legend = [styled("guessed", "green"), styled(" and the model's own", "dim")]
    lines = tail(status.text, min(width, MOST_TEXT), height - 1)
    return _filled([heading("text", width, status.exact, legend), *lines], height)


def _tree(status: HolderStatus, width: int, height: int) -> list[Line]:
    """A heading, the branches, and what was pruned lately, in `height` lines if that is enough."""
    figures = status.figures
    nodes = "1 node" if figures.nodes == 1 else f"{figures.nodes} nodes"
    now = f"{nodes}, {figures.counts.drafted} grown, {figures.pruned} pruned"
    legend = [styled("judged", "green"), styled(" in the ring", "cyan"), styled(" not sent")]
    branches = tree.draw(status.tree, width, height - 2)
    pruned = [styled("✂ ", "red")] if status.pruned else []
    for text in status.pruned:
        pruned += [styled(clean(text), "strike red"), styled("  ")]
    lines = _filled([heading("tree", width, now, legend), *branches], height - 1)
    return [*lines, cut(pruned, width)]


def _filled(lines: list[Line], height: int) -> list[Line]:
    missing: list[Line] = [[]] * (height - len(lines))
    return [*lines, *missing]
