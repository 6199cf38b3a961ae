"""Plots of an evaluation. Only this module needs matplotlib."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gardener.errors import UserError
from gardener.evaluation.perfetto import start
from gardener.evaluation.timeline import Timeline, forward_passes
from gardener.runtime.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "plain": "#7f7f7f",
    "serial": "#56b4e9",
    "chunked": "#e69f00",
    "pipedec": "#cc79a7",
    "flowspec": "#d55e00",
    "gardener": "#009e73",
    "alternating": "#0072b2",
}
"""Colours that most people can tell apart (after Okabe and Ito)."""

ROUND_TRIPS = 6
"""The number of round trips that a timeline shows."""

SHADES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Successive segments take these in turn, so that each can be followed from stage to stage."""


def require() -> None:
    """Raises UserError if matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise UserError(
            "there are no plots without matplotlib: pip install 'gardener-node[plots]'; all "
            "figures and trace files are written"
        )


def bars(title: str, sets: Mapping[str, Any], policies: Sequence[str], path: Path) -> None:
    """Tokens per second by data set and policy, with the speed-up over the first policy on top."""
    figure, axes = _figure(max(6.0, 1.2 + 0.45 * len(sets) * len(policies)), 4.2)
    width = 0.8 / len(policies)
    for number, policy in enumerate(policies):
        heights = [
            each["policies"][policy]["tokens_per_second"]["mean"] or 0.0 for each in sets.values()
        ]
        places = [at + (number - (len(policies) - 1) / 2) * width for at in range(len(sets))]
        drawn = axes.bar(places, heights, width * 0.94, label=policy, color=colour(policy))
        if number:
            labels = [_factor(each["policies"], policy, policies[0]) for each in sets.values()]
            axes.bar_label(drawn, labels, fontsize=7, padding=1)
    axes.set_xticks(range(len(sets)), list(sets))
    axes.set_ylabel("tokens/s while decoding, mean")
    base = f"; numbers: speed-up over {policies[0]}, mean" if len(policies) > 1 else ""
    axes.set_title(f"{title}{base}", fontsize=9, loc="left")
    axes.margins(y=0.12)
    _legend(figure, axes)
    _save(figure, path)


def _factor(figures: Mapping[str, Any], policy: str, base: str) -> str:
    known = figures[policy]["speedup"].get(base)
    return f"{known['mean']:.2f}" if known and known["mean"] else ""


def speedups(
    base: str, curves: Mapping[str, Mapping[str, Mapping[int, float]]], path: Path
) -> None:
    """Speed-up over `base` by stages, a panel for each profile. curves[profile][policy][N]."""
    figure, panels = _panels(len(curves))
    for axes, (profile, policies) in zip(panels, curves.items(), strict=True):
        stages = sorted({n for curve in policies.values() for n in curve})
        for policy, curve in policies.items():
            places = sorted(curve)
            values = [curve[n] for n in places]
            axes.plot(places, values, "o-", ms=4, label=policy, color=colour(policy))
        axes.set_xscale("log", base=2)
        axes.set_xticks(stages, [str(n) for n in stages])
        axes.set_xlabel("stages")
        axes.set_title(profile, fontsize=9, loc="left")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"speed-up over {base}, while decoding")
    _legend(figure, panels[0])
    _save(figure, path)


def concurrency(title: str, curves: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Tokens per second of all requests together, by how many are asked at once.
    curves[policy][N]."""
    figure, axes = _figure(5.0, 4.0)
    for policy, curve in curves.items():
        places = sorted(curve)
        values = [curve[n] for n in places]
        axes.plot(places, values, "o-", ms=4, label=policy, color=colour(policy))
    levels = sorted({n for curve in curves.values() for n in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(levels, [str(n) for n in levels])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("requests at once")
    axes.set_ylabel("tokens/s of all requests, prompts included")
    axes.set_title(title, fontsize=9, loc="left")
    axes.grid(alpha=0.3)
    _legend(figure, axes)
    _save(figure, path)


def draw_timelines(title: str, timelines: Mapping[str, Timeline], path: Path) -> None:
    """What drafter and stages did from the first token on, on one axis for all policies.

    Forward passes have the colour of their first segment; ticks at the top are emissions.
    """
    shown = {
        name: timeline
        for name, timeline in timelines.items()
        if timeline.emitted and timeline.segments
    }
    if not shown:
        return
    span = ROUND_TRIPS * max(_round_trip(timeline) for timeline in shown.values())
    lanes = next(iter(shown.values())).stages + 1
    figure, panels = _panels(len(shown), across=False, height=0.5 + 0.2 * lanes)
    for axes, (policy, timeline) in zip(panels, shown.items(), strict=True):
        _lanes(axes, timeline, span)
        axes.set_title(policy, fontsize=8, loc="left")
    panels[-1].set_xlabel(f"milliseconds since the first token; {title}", fontsize=8)
    _save(figure, path)


def _round_trip(timeline: Timeline) -> float:
    """The median time from sending a segment to its verdict; few of them are of the prefill."""
    times = sorted(segment.judged - segment.sent for segment in timeline.segments)
    return times[len(times) // 2]


def _lanes(axes: "Axes", timeline: Timeline, span: float) -> None:
    zero = timeline.emitted[0][0] if timeline.emitted else start(timeline)

    def bar(begin: float, end: float) -> tuple[float, float]:
        return (begin - zero) * 1e3, (end - begin) * 1e3

    drafts = [bar(begin, end) for begin, end, _ in timeline.drafts]
    axes.broken_barh(drafts, (-0.4, 0.8), color="#7f7f7f")
    for stage in range(timeline.stages):
        passes = forward_passes(timeline, stage)
        colours = [SHADES[work.segments[0].seq % len(SHADES)] for work in passes]
        spans = [bar(work.begin, work.end) for work in passes]
        axes.broken_barh(spans, (stage + 0.6, 0.8), facecolors=colours)
    moments = [(at - zero) * 1e3 for at, _ in timeline.emitted]
    axes.plot(moments, [-0.75] * len(moments), "|", color="black", ms=5, mew=0.8)
    axes.set_yticks(
        range(timeline.stages + 1), ["drafter", *map(str, range(1, timeline.stages + 1))]
    )
    axes.tick_params(labelsize=6)
    axes.set_xlim(0, span * 1e3)
    axes.set_ylim(timeline.stages + 0.6, -1.1)


def colour(policy: str) -> str:
    return COLOURS.get(policy, "black")


def _save(figure: "Figure", path: Path) -> None:
    with whole_file(path) as draft:
        figure.savefig(draft, dpi=150)


def _legend(figure: "Figure", axes: "Axes") -> None:
    """Put the legend below the plot, where there is no curve."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=7, frameon=False)


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    figure, panels = _panels(1, width=width, height=height)
    return figure, panels[0]


def _panels(
    count: int, *, across: bool = True, width: float = 5.0, height: float = 4.0
) -> "tuple[Figure, list[Axes]]":
    """A figure with axes, made without pyplot, which keeps state and looks for a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (width * count, height) if across else (9.0, height * count)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    shape = (1, count) if across else (count, 1)
    axes = figure.subplots(*shape, sharex=not across, sharey=across, squeeze=False)
    return figure, [each for row in axes for each in row]
