"""The requests besides the one that is shown large, a line each."""

from collections.abc import Sequence

from gardener.cli.view.lines import Line, cut, heading, styled
from gardener.cli.view.text import clean
from gardener.cli.view.units import duration
from gardener.watch.status import RequestLine

STATES = {"writing": "green", "reading": "blue", "waiting": "dim"}


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
    found = [heading("requests", width, ", ".join(counts))]
    found += [cut(_line(each, width), width) for each in shown]
    if len(shown) < len(running) and room > 0:
        found.append([styled(f"and {len(running) - len(shown)} more", "dim")])
    return [cut(line, width) for line in found]


def _line(request: RequestLine, width: int) -> Line:
    line = [
        styled(f"#{request.number:<3}", "bold"),
        styled(f" {request.state}", STATES[request.state]),
        styled(f" {clean(request.policy):<11}"),
    ]
    if request.state == "writing":
        line += [
            styled(f"{request.rate:5.1f} tokens/s", "bold"),
            styled(f"  mean {request.mean:.1f}  {request.tokens} tokens"),
        ]
    line.append(styled(f"  prompt {request.prompt}", "dim"))
    line.append(styled(f"  {duration(request.elapsed)}", "dim"))
    return line
