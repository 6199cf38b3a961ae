"""What a pass of a middle stage takes on a device, beside the time of reading its weights once.

Eight layers of a shape, kinds of weights (all but llm-int8), with and without graphs, numbers of
rows and lengths of the text, the important ones first. The stage is loaded as a node loads it, so
that the kernels are those that a ring would run, and each layer has weights of its own: what a
cache of the device holds of one, the next seven have pushed out.

The bound of a cell is the bytes of the stage's weights over the best bandwidth that the device has
shown in the whole run, before and after the passes: keys and values of the text do not count in it,
and are told beside it.
"""

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.accelerator.budget import Budget
from benchmarks.accelerator.device import LASTING
from benchmarks.accelerator.processes import Child, Lost
from benchmarks.kinds import ITEM, Kind
from benchmarks.shapes import SHAPES, Shape, write_folder

LAYERS = 8
MEMORY, ROOM = Path("/dev/shm"), 16 * 2**30
"""A folder in memory, where Linux has one, and bytes that should be free there."""

FIRST_ROWS = (1, 16)
"""That are measured before all others, after each text."""

LOADING = 60.0
"""Most seconds that a stage may load, its kernels tried out."""

ONE = 20.0
"""And that a cell may take, its graph captured."""

UNMEASURED = "llm-int8: it is not among the kinds that are measured"


@dataclass(frozen=True)
class Wanted:
    """What is to be measured. `size`: bytes that are read to find the bandwidth, for `lasting`
    seconds; `seconds` and `least`: how long a cell is timed, and how many passes at least."""

    device: str
    shape: Shape
    units: Sequence["Unit"]
    rows: Sequence[int]
    texts: Sequence[int]
    size: int
    seconds: float = 0.1
    least: int = 10
    lasting: float = LASTING

    @classmethod
    def of(cls, device: str, quick: bool) -> "Wanted":
        """All of it; or, to see that it runs, a shape that takes no time."""
        graphs = device.partition(":")[0] == "cuda"
        if quick:
            tiny = Shape(LAYERS + 2, 64, 128, 4, 4, 64, 0)
            units = [Unit("bfloat16", graphs)]
            return cls(device, tiny, units, (1, 16), (16, 300), 2**20, 0.0, 2, 0.01)
        shape = replace(SHAPES["llama-2-7b"].with_layers(LAYERS + 2), vocab=64)
        rows = (1, 2, 4, 8, 16, 32, 64, 128)
        return cls(device, shape, list(units_of(graphs)), rows, (16, 1024, 4096), 2**31)


@dataclass(frozen=True)
class Unit:
    """What is loaded at a time. kind: as in `benchmarks.kinds`. graphs: whether they are asked
    for."""

    kind: str
    graphs: bool

    def __str__(self) -> str:
        return f"{self.kind} {'with' if self.graphs else 'without'} graphs"


def units_of(graphs: bool) -> Iterator[Unit]:
    """The important ones first. `graphs`: whether the device has any. Without them, a stage that
    has just been measured with them need not be loaded again."""
    first, second, *others = (
        "bfloat16",
        "int4:bfloat16",
        "float32",
        "float16",
        "nf4",
        "int8:bfloat16",
        "fp4",
    )
    if not graphs:
        yield from (Unit(kind, False) for kind in (first, second, *others))
        return
    yield Unit(first, True)
    yield from (Unit(second, own) for own in (True, False))
    yield Unit(first, False)
    yield from (Unit(kind, own) for kind in others for own in (True, False))


@dataclass(frozen=True)
class Cell:
    """One entry of the table, times in milliseconds. `ms`: the median pass; `least`: the quickest;
    `blocks`: the median of the blocks alone, see `passes`; `first`: the first pass of that size.
    `asked`: whether graphs were asked for; `graphs`: whether passes were replayed. `weights`: their
    bytes; `cache`: those of keys and values that a pass reads besides."""

    kind: str
    asked: bool
    graphs: bool
    rows: int
    text: int
    weights: float
    cache: int
    ms: float
    least_ms: float
    blocks_ms: float
    first_ms: float
    passes: int


@dataclass(frozen=True)
class Loaded:
    """A stage that was measured. `asked`: for graphs. `seconds`: 0: it was there. `bytes`: of its
    weights; `held`: as many as it keeps. `spread`: how far a row may be from itself in another
    batch, as a part of its size. `replayed`: see `passes.replayed`, when it was loaded. `first_ms`:
    its very first pass. `peak` and `reserved`: the most on the device meanwhile, 0 where it does
    not tell."""

    kind: str
    asked: bool
    seconds: float
    bytes: float
    held: int
    spread: float
    replayed: int | None
    first_ms: float
    peak: int = 0
    reserved: int = 0


@dataclass
class Found:
    """`device`: what it is, with its best bandwidth, and in `readings` all that were read of it.
    `left_out`: sentences. `said`: what stages warned of."""

    device: dict[str, Any] = field(default_factory=dict)
    readings: list[float] = field(default_factory=list)
    loaded: list[Loaded] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def read(self, told: dict[str, Any]) -> None:
        """A bandwidth. What else a device does makes it only ever slower: the best one counts."""
        self.readings.append(float(told["bytes_per_second"]))
        self.device = {**self.device, **told, "bytes_per_second": max(self.readings)}

    def bound_ms(self, cell: Cell) -> float:
        """Milliseconds of reading the weights once."""
        return cell.weights / float(self.device["bytes_per_second"]) * 1e3

    def ratio(self, cell: Cell) -> float:
        """The median pass: times the bound."""
        return cell.ms / self.bound_ms(cell)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        for told, cell in zip(found["cells"], self.cells, strict=True):
            told |= {"bound_ms": self.bound_ms(cell), "ratio": self.ratio(cell)}
        return found


def order(rows: Sequence[int], texts: Sequence[int]) -> list[tuple[int, int]]:
    """All pairs of rows and texts: the important ones first, then by texts."""
    early = [(each, text) for text in texts for each in rows if each in FIRST_ROWS]
    late = [(each, text) for text in texts for each in rows if each not in FIRST_ROWS]
    return early + late


def measure(wanted: Wanted, budget: Budget, found: Found, tell: Callable[[], None]) -> None:
    """Into `found`, as it comes; `tell` is called after each unit. A process that hangs or ends
    takes its unit with it: the next one has a new process."""
    units = list(wanted.units)
    found.left_out.append(UNMEASURED)
    with tempfile.TemporaryDirectory(prefix="gardener-", dir=memory()) as scratch:
        folder = Path(scratch) / "model"
        child = _child()  # imports for seconds, while the folder is written
        with child:
            context = max(wanted.texts) + 2 * max(wanted.rows)
            write_folder(folder, wanted.shape, context, range(1, wanted.shape.layers - 1))
            _in_one(child, wanted, folder, units, budget, found, tell)
        while units and budget.left:
            with _child() as child:
                _in_one(child, wanted, folder, units, budget, found, tell)
    found.left_out += [f"{unit}: no time" for unit in units]
    tell()


def memory() -> Path | None:
    """A folder whose files are kept in memory, if there is one with room; None: the usual one."""
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        return MEMORY
    return None


def _child() -> Child:
    command = (sys.executable, "-P", "-m", "benchmarks.accelerator.passes")
    return Child("the process that computes", command)


def _in_one(
    child: Child,
    wanted: Wanted,
    folder: Path,
    units: list[Unit],
    budget: Budget,
    found: Found,
    tell: Callable[[], None],
) -> None:
    """As many units as one process does; those that were begun are taken off the list."""
    try:
        told = child.ask(
            "device",
            min(LOADING, budget.left),
            device=wanted.device,
            size=wanted.size,
            lasting=wanted.lasting,
        )
        _hear(told, "the device", found)
    except Lost as lost:
        told = {"error": str(lost)}
    if "error" in told:
        found.left_out.append(f"all that follows: {told['error']}")
        units.clear()
        return
    found.read(told)
    while units and budget.left:
        unit = units.pop(0)
        try:
            weights = _load(child, unit, wanted, folder, budget, found)
            if weights is not None:
                share = budget.share(2, len(units) + 2)
                _cells(child, unit, wanted, weights, share, found)
        except Lost as lost:
            found.left_out.append(f"{unit}: {lost}")
            return
        finally:
            tell()
    _read_again(child, wanted, found)


def _read_again(child: Child, wanted: Wanted, found: Found) -> None:
    """The bandwidth, of a device that has worked. It takes a second, also where none is left."""
    try:
        told = child.ask("bandwidth", ONE, size=wanted.size, lasting=wanted.lasting)
        _hear(told, "the device", found)
    except Lost as lost:
        told = {"error": str(lost)}
    if "error" in told:
        found.left_out.append(f"the bandwidth after all passes: {told['error']}")
    else:
        found.read(told)


def _hear(told: dict[str, Any], whose: str, found: Found) -> None:
    """Keep what was warned of."""
    found.said += [f"{whose}: {line}" for line in told.pop("said", ())]


def _load(
    child: Child, unit: Unit, wanted: Wanted, folder: Path, budget: Budget, found: Found
) -> float | None:
    """The bytes of its weights; None: it cannot be loaded. Raises Lost."""
    kind, shape = Kind.read(unit.kind), wanted.shape
    told = child.ask(
        "load",
        min(LOADING, budget.left),
        folder=str(folder),
        first=1,
        end=shape.layers - 1,
        layers=shape.layers,
        device=wanted.device,
        graphs=unit.graphs,
        **kind.how(),
    )
    _hear(told, str(unit), found)
    if "error" in told:
        if not told["sound"]:
            raise Lost(told["error"])
        found.left_out.append(f"{unit}: {told['error']}")
        return None
    if unit.graphs and told["replayed"] == 0:
        found.left_out.append(
            f"{unit}: no graphs are used: a node would replay no pass here, and so do its cells"
        )
    size = min(float(told["bytes"]), kind.bytes * shape.layer_weights * (shape.layers - 2))
    found.loaded.append(
        Loaded(
            unit.kind,
            unit.graphs,
            told["seconds"],
            size,
            told["bytes"],
            told["spread"],
            told["replayed"],
            told["first"] * 1e3,
        )
    )
    return size


def _cells(
    child: Child, unit: Unit, wanted: Wanted, weights: float, budget: Budget, found: Found
) -> None:
    """All of its cells for which there is time. Raises Lost."""
    shape = wanted.shape
    row = 2 * shape.kv_width * (shape.layers - 2) * ITEM[Kind.read(unit.kind).dtype]
    left, replays = order(wanted.rows, wanted.texts), found.loaded[-1].replayed != 0
    while left and budget.left:
        rows, text = left.pop(0)
        told = child.ask(
            "time", ONE, rows=rows, text=text, seconds=wanted.seconds, least=wanted.least
        )
        _hear(told, str(unit), found)
        if "error" in told:  # what follows on this device cannot be trusted
            raise Lost(f"{rows} rows after {text} tokens: {told['error']}")
        if replays and not told["graphs"]:
            replays = False
            found.left_out.append(
                f"{unit}: no graphs are used from {rows} rows after {text} tokens on: they failed"
            )
        found.cells.append(_cell(unit, rows, text, weights, row * (text + rows), told))
    if left:
        found.left_out.append(f"{unit}: {len(left)} of its cells: no time")
    told = child.ask("memory", ONE)
    _hear(told, str(unit), found)
    if "error" in told:
        raise Lost(f"its memory: {told['error']}")
    found.loaded[-1] = replace(found.loaded[-1], **told)


def _cell(
    unit: Unit, rows: int, text: int, weights: float, cache: int, told: dict[str, Any]
) -> Cell:
    passes = told["passes"]
    return Cell(
        unit.kind,
        unit.graphs,
        told["graphs"],
        rows,
        text,
        weights,
        cache,
        ms=statistics.median(passes) * 1e3,
        least_ms=min(passes) * 1e3,
        blocks_ms=statistics.median(told["blocks"]) * 1e3,
        first_ms=told["first"] * 1e3,
        passes=len(passes),
    )
