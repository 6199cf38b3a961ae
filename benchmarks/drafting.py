"""What drafting costs: an expansion of ten nodes and a re-anchoring of four tokens, next to a
segment of eight rows at one of three stages.

The three are measured in turns, after a text of a few hundred tokens, in this process with one
thread. Run from the checkout: `python -m benchmarks.drafting [--head FOLDER] [--json]`.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine
from gardener.cli.program import note
from gardener.draft.factory import DraftSettings, drafters
from gardener.draft.timing import TEXT, DraftedText, timed
from gardener.model.checkpoint.resolve import resolve
from gardener.model.checkpoint.slices import Slice
from gardener.model.kv_slots import SlotTable
from gardener.model.tensors import dtype_of, pack
from gardener.protocol.messages import Open
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage

NODES, ROWS = 10, 8


class Segments:
    """A stage in the middle that computes segments of `ROWS` rows after a text."""

    def __init__(self, model: Path, dtype: str, layers: int) -> None:
        third = layers // 3
        self._stage = load_stage(model, Slice(third, 2 * third, layers), dtype=dtype)
        self._width, self._dtype = self._stage.width, dtype_of(dtype)
        self._stage.open(Open(1, 1, 4 * TEXT))
        self._table = SlotTable(TEXT, 4 * TEXT)
        self._next = TEXT
        ids = range(TEXT)
        self._run(self._job(ids, [i - 1 for i in ids], ids))

    def _job(self, ids: Any, parents: Any, positions: Any) -> PlacedSegment:
        hidden = pack(torch.randn(len(ids), self._width).to(self._dtype))
        return PlacedSegment(1, self._table.place(ids, parents, positions), hidden=hidden)

    def _run(self, job: PlacedSegment) -> None:
        assert self._stage.run([job]) is not None

    def once(self) -> float:
        """Seconds for one segment, a chain of guesses."""
        ids = [self._next + i for i in range(ROWS)]
        parents = [TEXT - 1, *ids[:-1]]
        job = self._job(ids, parents, [TEXT + i for i in range(ROWS)])
        self._next += ROWS
        seconds = timed(lambda: self._run(job))
        self._table.advance([], TEXT - 1)  # these rows are dead now
        return seconds


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians in milliseconds."""
    torch.set_num_threads(1)
    model = resolve(arguments.model, None, say=note)
    settings = DraftSettings(("eagle",), arguments.head, dtype=arguments.draft_dtype)
    (drafter,) = drafters(settings, model, Path, Path)
    config = json.loads((model / "config.json").read_text())
    segments = Segments(model, arguments.dtype, config["num_hidden_layers"])
    drafts = DraftedText(drafter, config["hidden_size"], arguments.dtype, config["vocab_size"])
    times: dict[str, list[float]] = {"segment": [], "expansion": [], "re_anchoring": []}
    for turn in range(arguments.repeat + 5):
        got = segments.once(), drafts.expansion(NODES), drafts.re_anchoring()
        for (_, values), seconds in zip(times.items(), got, strict=True):
            if turn >= 5:
                values.append(1000 * seconds)
    ratios = [e / s for e, s in zip(times["expansion"], times["segment"], strict=True)]
    return {
        "machine": machine(),
        "dtype": arguments.dtype,
        "milliseconds": {name: statistics.median(values) for name, values in times.items()},
        "expansion_to_segment": statistics.median(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--head", help="a head instead of the one that is shipped")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--draft-dtype", default="auto")
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = measure(arguments)
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    for name, value in report["milliseconds"].items():
        print(f"{name:13} {value:6.2f} ms")
    print(f"expansion / segment {report['expansion_to_segment']:.3f}")


if __name__ == "__main__":
    main()
