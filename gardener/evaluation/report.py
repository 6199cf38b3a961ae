"""The plots and trace files that an evaluation leaves in its folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gardener.evaluation import plots
from gardener.evaluation.perfetto import trace_file
from gardener.evaluation.results import Results
from gardener.evaluation.tally import BASES, OVERALL
from gardener.runtime.files import write_text


def write_traces(results: Results, folder: Path) -> list[Path]:
    """Write a trace file for each ring. Raises UserError."""
    written = []
    for ring, timelines in results.timelines.items():
        written.append(folder / f"trace-{_slug(ring)}.json")
        write_text(written[-1], trace_file(timelines))
    return written


def write_plots(results: Results, folder: Path) -> list[Path]:
    """Write bars and timelines for each ring, speed-ups by the number of stages if there are
    several, and tokens per second by the number of requests at once. Raises UserError if
    matplotlib is missing."""
    plots.require()
    policies = results.plan.policies
    written: list[Path] = []
    for ring, sets in results.figures().items():
        if sets:
            written.append(folder / f"bars-{_slug(ring)}.png")
            plots.bars(ring, sets, policies, written[-1])
    for ring, timelines in results.timelines.items():
        written.append(folder / f"timeline-{_slug(ring)}.png")
        plots.draw_timelines(ring, timelines, written[-1])
    for base, curves in _curves(results):
        written.append(folder / f"speedup-over-{base}.png")
        plots.speedups(base, curves, written[-1])
    for ring, several in results.concurrency().items():
        if several:
            written.append(folder / f"concurrency-{_slug(ring)}.png")
            plots.concurrency(ring, _totals(several), written[-1])
    return [path for path in written if path.exists()]


def _totals(several: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Tokens per second of all requests, by policy and number of requests."""
    return {
        policy: {int(level): each["tokens_per_second"] for level, each in by_level.items()}
        for policy, by_level in several.items()
    }


def _curves(results: Results) -> Iterator[tuple[str, dict[str, dict[str, dict[int, float]]]]]:
    """Overall speed-ups over each base, by kind of ring, policy and number of stages; only for
    kinds that ran with several numbers of stages."""
    figures = results.figures()
    for base in BASES:
        curves: dict[str, dict[str, dict[int, float]]] = {}
        for name, ring in results.rings.items():
            kind = ring["profile"] or ring["kind"]
            if ring["draft"] is not None:
                kind += f", draft {ring['draft']}"
            for policy, speedup in _overall(figures[name], base).items():
                curves.setdefault(kind, {}).setdefault(policy, {})[ring["stages"]] = speedup
        several = {k: v for k, v in curves.items() if max(len(c) for c in v.values()) > 1}
        if several:
            yield base, several


def _overall(sets: dict[str, Any], base: str) -> dict[str, float]:
    if not sets:
        return {}
    whole = sets.get(OVERALL) or next(iter(sets.values()))
    ratios = {
        policy: each["speedup"].get(base, {}).get("mean")
        for policy, each in whole["policies"].items()
        if policy != base
    }
    return {policy: ratio for policy, ratio in ratios.items() if ratio}


def _slug(ring: str) -> str:
    """A ring's name as part of a file name."""
    return "".join(c if c.isalnum() or c in "-." else "-" for c in ring)
