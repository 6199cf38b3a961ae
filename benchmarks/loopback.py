"""The profile `loopback` for this machine: what passes of the model and of its drafter take.

All layers and the head in one pass, and an expansion by the drafter that takes time, for some
numbers of rows after a text of a few hundred tokens, in turns, in this process.
Prints the TOML of `gardener/rings/simulate/profiles/loopback.toml`; overhead and links are those of
`python -m benchmarks.hop`. On an idle machine, from the checkout:
`python -m benchmarks.loopback [--kind int4] [--head FOLDER] > my-loopback.toml`.
"""

import argparse
import copy
import random
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.kinds import Kind
from benchmarks.machine import machine
from gardener.cli.program import note
from gardener.draft.factory import DraftSettings, drafters
from gardener.draft.resolve import resolve_head
from gardener.draft.timing import TEXT, DraftedText, timed
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.resolve import resolve
from gardener.model.kv_slots import SlotTable
from gardener.protocol.messages import Open
from gardener.protocol.tensors import ITEM_SIZE
from gardener.rings.cores import crowded
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage

ROWS = (1, 2, 4, 8, 16, 32, 64)

OVERHEAD_MS, DELAY_MS, BANDWIDTH_MBIT = 0.8, 0.04, 8500.0
"""From docs/results.md, "What the ring costs"."""


class Passes:
    """All of a model, which computes chains of guesses after a text of random tokens."""

    def __init__(self, model: Path, kind: Kind) -> None:
        self._stage = load_stage(model, **kind.how())
        self._stage.open(Open(1, 1, 4 * TEXT))
        self._table = SlotTable(TEXT, 4 * TEXT)
        self._random = random.Random(1)
        self._compute(self._job(0, TEXT, self._table))

    def once(self, rows: int) -> float:
        """Seconds of a pass, in which all rows are judged."""
        job = self._job(TEXT, rows, copy.deepcopy(self._table))
        return timed(lambda: self._compute(job))

    def _job(self, first: int, rows: int, table: SlotTable) -> PlacedSegment:
        """A chain of rows after `first` others."""
        ids = list(range(first, first + rows))
        placement = table.place(ids, [i - 1 for i in ids], ids)
        tokens = [self._random.randrange(self._stage.architecture.vocab) for _ in ids]
        return PlacedSegment(1, placement, tokens, pick_rows=range(rows) if first else [])

    def _compute(self, job: PlacedSegment) -> None:
        assert self._stage.run([job]) is not None


def points(measured: Callable[[int], float], repeat: int) -> list[list[float]]:
    """Rows and milliseconds: medians over `repeat` turns, each of which measures all sizes."""
    times: dict[int, list[float]] = {rows: [] for rows in ROWS}
    for turn in range(repeat + 3):
        for rows in ROWS:
            seconds = measured(rows)
            if turn >= 3:
                times[rows].append(seconds)
    return [[rows, round(1000 * statistics.median(each), 3)] for rows, each in times.items()]


def profile(arguments: argparse.Namespace) -> str:
    """The TOML."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = resolve(arguments.model, None, say=note)
    shape = Architecture.read(model)
    settings = DraftSettings(("eagle",), arguments.head, dtype=arguments.draft_dtype)
    (drafter,) = drafters(settings, model, lambda name: resolve_head(name, note), Path)
    kind = Kind.read(arguments.kind)
    passes = Passes(model, kind)
    drafts = DraftedText(drafter, shape.width, kind.dtype, shape.vocab)

    def expansion(rows: int) -> float:
        seconds = drafts.expansion(rows)
        drafts.re_anchoring()  # so that the tree does not grow
        return seconds

    facts = [f"# {name}: {value}" for name, value in machine().items()]
    lines = [
        f"model = {points(passes.once, arguments.repeat)}",
        f"overhead_ms = {OVERHEAD_MS}",
        f"row_bytes = {shape.width * ITEM_SIZE[kind.dtype]}",
        f"link = {{ delay_ms = {DELAY_MS}, bandwidth_mbit = {BANDWIDTH_MBIT} }}",
        f"drafter = {points(expansion, arguments.repeat)}",
        f"crowded = {str(crowded(arguments.stages)).lower()}",
    ]
    how = f"# kind: {kind.name}, in {kind.dtype}, threads: {torch.get_num_threads()}"
    return "\n".join([*facts, how, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--head", help="a head instead of the one that is shipped")
    parser.add_argument("--kind", default="float32", help="of weights, see benchmarks/kinds.py")
    parser.add_argument("--draft-dtype", default="auto")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--stages", type=int, default=2, help="that are to share this machine")
    parser.add_argument("--repeat", type=int, default=20)
    print(profile(parser.parse_args()))


if __name__ == "__main__":
    main()
