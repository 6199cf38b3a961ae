"""The tables of a report, for people."""

from collections.abc import Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table

from benchmarks.accelerator.report import Report
from benchmarks.accelerator.rings import Evaluated

WIDE = 170
"""Columns where there is no terminal."""


def show(report: Report, console: Console) -> None:
    """Print all that there is."""
    console.print(Group(*_parts(report)), highlight=False)


def _parts(report: Report) -> Iterator[RenderableType]:
    yield from _stage(report)
    if report.verified:
        yield _verified(report)
        yield from _differences(report)
    if report.evaluated:
        yield _speed(report)
    if report.curve:
        yield _curve(report)
    yield _aims(report)
    for part, sentences in report.left_out.items():
        for sentence in sentences:
            yield f"{part}: left out: {sentence}"
    yield ", ".join(f"{part} {seconds:.0f} s" for part, seconds in report.seconds.items())


def _table(title: str, names: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in names:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _stage(report: Report) -> Iterator[RenderableType]:
    """The passes of all stages, and what loading took."""
    cells, device = report.stage.cells, report.stage.device
    if not cells:
        return
    speed = f"{device['bytes_per_second'] / 1e9:.0f} GB/s"
    rows = sorted({cell.rows for cell in cells})
    table = _table(
        f"{device.get('name', device['device'])}: ms of a pass (times the bound at {speed}), and "
        "of its blocks alone, by rows",
        ("weights", "text"),
        tuple(str(each) for each in rows),
    )
    own = {(c.kind, c.graphs, c.text, c.rows): c for c in cells}
    for kind, graphs, text in dict.fromkeys((c.kind, c.graphs, c.text) for c in cells):
        found = [own.get((kind, graphs, text, each)) for each in rows]
        told = [f"{c.ms:.2f} ({c.ratio:.2f}) {c.blocks_ms:.2f}" if c else "-" for c in found]
        table.add_row(_named(kind, graphs), str(text), *told)
    yield table
    yield _loaded(report)


def _named(kind: str, graphs: bool) -> str:
    return kind if graphs else f"{kind}, no graphs"


def _loaded(report: Report) -> Table:
    table = _table(
        "loading, and the most memory of the device from then on",
        ("weights",),
        ("s", "weights GB", "kept GB", "peak GB", "reserved GB"),
    )
    for each in report.stage.loaded:
        sizes = (each.bytes, each.held, each.peak, each.reserved)
        told = (f"{size / 1e9:.2f}" for size in sizes)
        table.add_row(_named(each.kind, each.graphs), f"{each.seconds:.1f}", *told)
    return table


def _verified(report: Report) -> Table:
    table = _table(
        "texts of all policies against plain",
        ("ring",),
        ("same", "tied", "different", "s", "the ring says", "not all of it"),
    )
    for each in report.verified:
        counts = map(str, (each.same, each.tie, each.different, round(each.seconds)))
        table.add_row(str(each.ring), *counts, each.exactness, each.error)
    return table


def _differences(report: Report) -> Iterator[str]:
    for each in report.verified:
        for text in each.differences:
            gap = "not told" if text["gap"] is None else f"{text['gap']:.2e}"
            yield (
                f"{each.ring.kind}: {text['policy']} left plain at token {text['position']} of "
                f"prompt {text['prompt']}, {text['outcome']}: gap of the two best scores {gap}"
            )


def _speed(report: Report) -> Table:
    policies = tuple(dict.fromkeys(name for each in report.evaluated for name in each.policies))
    table = _table(
        "tokens a second, the median prompt (times plain, the median ratio)",
        ("ring",),
        ("prompts", *policies, "texts that differ", "not all of it"),
    )
    for each in report.evaluated:
        differ = f"{len(each.differences) - each.near_ties} and {each.near_ties} near ties"
        speeds = [_rate(each, name) for name in policies]
        table.add_row(str(each.ring), str(each.prompts), *speeds, differ, each.error)
    return table


def _rate(found: Evaluated, policy: str) -> str:
    rate, gain = found.rate(policy), found.gain(policy)
    if rate is None:
        return "-"
    return f"{rate:.1f}" if gain is None else f"{rate:.1f} ({gain:.2f})"


def _curve(report: Report) -> Table:
    table = _table(
        "passes of a ring beside the curves on the cards of its stages",
        ("ring", "policy"),
        ("stage", "rows", "passes", "mean ms", "curve ms", "ratio", "median ratio"),
    )
    for ring, each in report.curve:
        counts = (str(each.stage), str(each.rows), str(each.passes))
        times = (f"{each.seen_ms:.3f}", f"{each.expected_ms:.3f}", f"{each.ratio:.2f}")
        table.add_row(ring, each.policy, *counts, *times, f"{each.middle:.2f}")
    return table


def _aims(report: Report) -> Table:
    table = _table("aims", ("what", "aim", "found", "met"), ())
    for each in report.aims():
        met = "-" if each.met is None else "yes" if each.met else "NO"
        table.add_row(each.what, each.aim, each.found or "not measured", met)
    return table
