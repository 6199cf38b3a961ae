"""What a pass of a stage takes, beside the time of reading its weights, keys and values once.

Random models of well-known shapes, a few layers of the large ones: every kind of weights, numbers
of threads and of rows, and lengths of the text. The bound of each cell is what it has to read
(matrices of its layers, of the head where that is computed, keys and values of the text), over the
bandwidth that this machine shows in the same run (`bandwidth.py`). A cell is the quickest pass of
several rounds. `--rival FOLDER` measures the same cells with another checkout of this project, in a
process of its own, in alternation with this one: before and after.

    python -m benchmarks.stage [--shapes ...] [--kinds ...] [--threads 1 2] [--all] [--json FILE]
    python -m benchmarks.stage --shapes llama-2-7b --kinds int4 nf4 --rival ../before

Kinds are written as in `kinds.py`. The folders are in bfloat16, as on the hub, and float32 keeps
such weights in 16 bits: it reads as much. All of the default takes about eight minutes on two
cores; with `--all`, which has every text with every number of rows, four times as long.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.bandwidth import bandwidth
from benchmarks.kinds import ITEM, Kind
from benchmarks.machine import machine
from benchmarks.shapes import SHAPES, Shape, write_folder
from benchmarks.told import Told
from gardener.cli.program import note

HERE = Path(__file__).parent
KINDS = ("float32", "bfloat16", "int8", "nf4", "int4")
LAYERS = {"smollm2-135m": 30, "llama-3.2-1b": 2, "llama-2-7b": 2}
"""How many are measured: enough that no cache holds them."""

SHORT = 16
FEW = (1, 16)
"""Rows that are measured after longer texts, unless all are."""


@dataclass(frozen=True)
class Cell:
    """One entry of the table. `head`: the head was computed too. `bytes`: what a pass reads."""

    side: str
    shape: str
    layers: int
    kind: str
    threads: int
    rows: int
    context: int
    head: bool
    bytes: float = 0.0
    bound_ms: float = 0.0
    ms: float = float("inf")

    @property
    def ratio(self) -> float:
        return self.ms / self.bound_ms


def side(name: str, tree: Path, threads: int) -> Told:
    """A process that times passes with the `gardener` of one folder."""
    environment = {
        "PYTHONPATH": str(tree),
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",  # nobody spins while the other side computes
    }
    command = (sys.executable, "-P", str(HERE / "stage_passes.py"))
    return Told(f"{name} ({tree})", command, environment)


def cells(options: argparse.Namespace) -> Iterator[tuple[int, int, bool]]:
    """Rows, text, and whether with the head."""
    short = min(options.texts)
    for text in options.texts:
        for rows in options.rows:
            if text == short or options.all or rows in FEW:
                yield rows, text, False
            if text == short or options.all:
                yield rows, text, True


def read_bytes(shape: Shape, kind: Kind, held: dict[str, Any], cell: Cell) -> float:
    """Bytes that a pass has to read: copies that a kernel keeps beside its weights do not count."""
    weights = min(held["layers"], kind.bytes * shape.layer_weights * shape.layers)
    head = min(held["head"], ITEM[kind.dtype] * shape.head_weights) if cell.head else 0
    cache = 2 * shape.kv_width * shape.layers * (cell.context + cell.rows) * ITEM[kind.dtype]
    return float(weights + head + cache)


def measure(
    options: argparse.Namespace, name: str, folder: Path, kind: Kind, threads: int, speed: float
) -> list[Cell]:
    """All cells of one kind of weights, on every side that has it."""
    shape = SHAPES[name].with_layers(options.layers or LAYERS[name])
    trees = {"this": options.tree, **({"rival": options.rival} if options.rival else {})}
    how = {"folder": str(folder), "threads": threads, **kind.how()}
    found: dict[tuple[str, int, int, bool], Cell] = {}
    with ExitStack() as stack:
        sides: dict[str, Told] = {}
        for who, tree in trees.items():
            process = stack.enter_context(side(who, tree.resolve(), threads))
            held = process.ask("load", **how)
            if "missing" in held:
                note(f"{who}: no {kind.name}: {held['missing']}")
                continue
            note(f"{who}: {name}, {kind.name}, threads {threads}: read in {held['seconds']:.1f} s")
            sides[who] = process
            for rows, text, head in cells(options):
                cell = Cell(who, name, shape.layers, kind.name, threads, rows, text, head)
                size = read_bytes(shape, kind, held, cell)
                cell = replace(cell, bytes=size, bound_ms=size / speed * 1e3)
                found[who, rows, text, head] = cell
        for _ in range(options.rounds):
            for rows, text, head in cells(options):
                for who, process in sides.items():
                    cell = found[who, rows, text, head]
                    ms = _least_ms(process, cell, options.seconds / options.rounds)
                    found[who, rows, text, head] = replace(cell, ms=min(cell.ms, ms))
    return list(found.values())


def _least_ms(process: Told, cell: Cell, seconds: float) -> float:
    """The quickest pass of those that fit into so many seconds."""
    timed = process.ask(
        "time", rows=cell.rows, context=cell.context, head=cell.head, seconds=seconds
    )
    return 1e3 * float(min(timed["passes"]))


def show(own: Sequence[Cell], speeds: dict[int, float]) -> None:
    """The tables of one shape and number of threads: milliseconds, and times the bound."""
    if not own:
        return
    shape, threads = own[0].shape, own[0].threads
    speed = f"memory is read with {speeds[threads] / 1e9:.1f} GB/s"
    print(f"\n{shape}, {own[0].layers} layers, threads {threads}, {speed}: ms (times the bound)")
    for head in (True, False):
        _table([cell for cell in own if cell.head == head], head)
    _whole(shape, own)
    sys.stdout.flush()


def _table(own: Sequence[Cell], head: bool) -> None:
    columns = list(dict.fromkeys((cell.context, cell.rows) for cell in own))
    print(f"  {'layers and head' if head else 'layers alone'}; text/rows:")
    print(f"  {'':22}" + "".join(f"{f'{text}/{rows}':>16}" for text, rows in columns))
    for kind, side in dict.fromkeys((cell.kind, cell.side) for cell in own):
        entries = {
            (cell.context, cell.rows): f"{cell.ms:.2f} ({cell.ratio:.2f})"
            for cell in own
            if (cell.kind, cell.side) == (kind, side)
        }
        line = "".join(f"{entries.get(column, '-'):>16}" for column in columns)
        print(f"  {kind:16}{side:6}{line}")


def _whole(shape: str, own: Sequence[Cell]) -> None:
    """One row through all layers of the shape and its head, reckoned from those measured."""
    scale = SHAPES[shape].layers / own[0].layers
    for kind, side in dict.fromkeys((cell.kind, cell.side) for cell in own):
        one = {
            cell.head: cell
            for cell in own
            if (cell.kind, cell.side, cell.rows) == (kind, side, 1) and cell.context == SHORT
        }
        if len(one) < 2:
            continue
        ms, bound = (
            scale * getattr(one[False], each) + getattr(one[True], each) - getattr(one[False], each)
            for each in ("ms", "bound_ms")
        )
        print(
            f"  {kind} {side}: all {SHAPES[shape].layers} layers and the head, one row: "
            f"{ms:.1f} ms, {ms / bound:.2f} times the bound"
        )


def run(options: argparse.Namespace, speeds: dict[int, float]) -> Iterator[list[Cell]]:
    """The cells of one shape with one number of threads after the other. `speeds`: the most bytes
    a second that were read so far, by threads; measured again before each of them, for what else
    the machine does only ever makes it slower."""
    kinds = [Kind.read(name) for name in options.kinds]
    with tempfile.TemporaryDirectory(prefix="gardener-", dir=options.folder) as scratch:
        for name in options.shapes:
            folder = Path(scratch) / name
            shape = SHAPES[name].with_layers(options.layers or LAYERS[name])
            write_folder(folder, shape, 2 * (max(options.texts) + max(options.rows)))
            for threads in options.threads:
                speeds[threads] = max(bandwidth(threads), speeds.get(threads, 0.0))
                found: list[Cell] = []
                for kind in kinds:
                    found += measure(options, name, folder, kind, threads, speeds[threads])
                yield found
            shutil.rmtree(folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), metavar="KIND")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--texts", nargs="+", type=int, default=[SHORT, 512, 2048, 8192])
    parser.add_argument("--all", action="store_true", help="every text with every rows and head")
    parser.add_argument("--layers", type=int, help="of every shape; default: 30, 2 and 2")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each cell, about")
    parser.add_argument("--rounds", type=int, default=2, help="turns that the sides take")
    parser.add_argument("--tree", type=Path, default=HERE.parent, help="checkout to measure")
    parser.add_argument("--rival", type=Path, help="another checkout, measured in alternation")
    parser.add_argument("--folder", type=Path, help="where the models are written for a while")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all cells there too")
    options = parser.parse_args()
    for name in options.kinds:
        if Kind.read(name).group is not None:
            parser.error(f"{name}: stages that quantise by themselves have one group")
    begin = time.monotonic()
    print(machine())
    speeds: dict[int, float] = {}
    done: list[Cell] = []
    for found in run(options, speeds):
        show(found, speeds)
        done += found
        if options.json:
            report = {"machine": machine(), "bytes_per_second": speeds}
            report["cells"] = [asdict(cell) for cell in done]
            options.json.write_text(json.dumps(report))
    print(f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
