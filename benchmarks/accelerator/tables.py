"""The tables of a report, for people."""

from collections.abc import Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table

from benchmarks.accelerator.report import Report
from benchmarks.accelerator.rings import Evaluated
from benchmarks.accelerator.stage import Cell, Loaded

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
        yield from _speed(report)
    if report.curve:
        yield _curve(report)
    yield _aims(report)
    yield from (f"stage: {sentence}" for sentence in report.stage.said)
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
        "of its blocks alone, both medians, by rows; keys and values are not in the bound",
        ("weights", "text"),
        ("K and V MB", *(str(each) for each in rows)),
    )
    own = {(_named(c), c.text, c.rows): c for c in cells}
    for name, text in dict.fromkeys((_named(c), c.text) for c in cells):
        found = [own.get((name, text, each)) for each in rows]
        told = [_told(report, c) if c else "-" for c in found]
        most = max(c.cache for c in found if c) / 1e6
        table.add_row(name, str(text), f"{most:.1f}", *told)
    yield table
    readings = ", ".join(f"{each / 1e9:.0f}" for each in report.stage.readings)
    yield f"the bound is that of the best bandwidth of all that were read: {readings} GB/s"
    yield _loaded(report)


def _told(report: Report, cell: Cell) -> str:
    return f"{cell.ms:.2f} ({report.stage.ratio(cell):.2f}) {cell.blocks_ms:.2f}"


def _named(cell: Cell) -> str:
    if cell.graphs:
        return cell.kind
    return f"{cell.kind}, graphs not used" if cell.asked else f"{cell.kind}, no graphs"


def _loaded(report: Report) -> Table:
    table = _table(
        "loading, the most memory of the device from then on, how far a row may be from itself in "
        "another batch (0: nowhere), and of how many requests a node would replay passes",
        ("weights",),
        ("s", "weights GB", "kept GB", "peak GB", "reserved GB", "spread", "replayed"),
    )
    for each in report.stage.loaded:
        sizes = (each.bytes, each.held, each.peak, each.reserved)
        told = (f"{size / 1e9:.2f}" for size in sizes)
        name = each.kind if each.asked else f"{each.kind}, no graphs"
        seconds = f"{each.seconds:.1f}" if each.seconds else "was there"
        table.add_row(name, seconds, *told, f"{each.spread:.1e}" if each.spread else "0", _of(each))
    return table


def _of(found: Loaded) -> str:
    if not found.asked:
        return "-"
    if found.replayed is None:
        return "of any number"
    return f"of up to {found.replayed}" if found.replayed else "NONE"


def _verified(report: Report) -> Table:
    table = _table(
        "texts of all policies against plain",
        ("ring",),
        ("same", "tied", "different", "s", "the ring says", "not all of it"),
    )
    for each in report.verified:
        counts = map(str, (each.same, each.tie, each.different, round(each.seconds)))
        name = f"{each.ring}, graphs failed" if each.gave_up else str(each.ring)
        table.add_row(name, *counts, each.exactness, each.error)
    return table


def _differences(report: Report) -> Iterator[str]:
    for each in report.verified:
        for text in each.differences:
            gap = "not told" if text["gap"] is None else f"{text['gap']:.2e}"
            yield (
                f"{each.ring.kind}: {text['policy']} left plain at token {text['position']} of "
                f"prompt {text['prompt']}, {text['outcome']}: gap of the two best scores {gap}"
            )


def _speed(report: Report) -> Iterator[RenderableType]:
    policies = tuple(dict.fromkeys(name for each in report.evaluated for name in each.policies))
    table = _table(
        "tokens a second, the median prompt (times plain, the median ratio)",
        ("ring",),
        ("prompts", *policies, "texts that differ", "not all of it"),
    )
    for each in report.evaluated:
        differ = f"{each.different} and {each.near_ties} near ties"
        speeds = [_rate(each, name) for name in policies]
        prompts = f"{each.prompts} of {each.wanted}" if each.wanted else str(each.prompts)
        table.add_row(each.name, prompts, *speeds, differ, each.error)
    yield table
    yield (
        "each ring has processes of its own, and some have fewer prompts: policies compare within "
        "a row, rows only roughly; whether a node replays its passes is for it to decide, and it "
        "is seen here only where graphs failed"
    )


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
    title = "aims for an H100; -: it cannot be said"
    if report.about.get("quick"):
        title += "; a quick run shows only that it runs: its stage is no 7B"
    table = _table(title, ("what", "aim", "found", "met"), ())
    for each in report.aims():
        met = "-" if each.met is None else "yes" if each.met else "NO"
        table.add_row(each.what, each.aim, each.found or "not measured", met)
    return table
