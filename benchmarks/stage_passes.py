"""Times passes of one stage as it is told over standard input, a JSON object a line.

The other half of `benchmarks.stage`. A script that imports nothing of the benchmarks, so that
PYTHONPATH alone decides whose `gardener` computes: `python -P benchmarks/stage_passes.py`.

    {"load": {"folder", "dtype", "quant", "threads", ...}}   answers with bytes and seconds
    {"time": {"rows", "context", "head", "seconds"}}         answers with the passes' seconds
"""

import inspect
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gardener.errors import UserError
from gardener.protocol.messages import Open
from gardener.stages.executor import Executor
from gardener.stages.load import load_stage
from gardener.stages.measure import REQUEST, chain

LEAST = 1
"""Passes that are timed however long they take, after one that is not."""


class Passes:
    """The stage that was loaded last."""

    def __init__(self) -> None:
        self._stage: Executor | None = None
        self._turn = 0

    def load(self, folder: str, **how: Any) -> dict[str, Any]:
        """All layers of a folder; `how`: as `load_stage` takes it. What it cannot do is answered
        with the reason."""
        self._stage = None
        odd = how.keys() - inspect.signature(load_stage).parameters.keys()
        if odd:
            return {"missing": f"no {', '.join(sorted(odd))} here"}
        begin = time.perf_counter()
        try:
            stage = load_stage(Path(folder), **how)
        except UserError as error:
            return {"missing": str(error)}
        except (KeyError, ValueError) as error:  # how older versions say so
            return {"missing": f"{type(error).__name__}: {error}"}
        seconds = time.perf_counter() - begin
        stage.open(Open(REQUEST, 1, stage.architecture.context))
        self._stage = stage
        return {
            "seconds": seconds,
            "layers": sum(block.nbytes for block in stage.passes.blocks),
            "head": stage._outlet.nbytes,
        }

    def time(self, rows: int, context: int, head: bool, seconds: float) -> dict[str, Any]:
        """Passes of `rows` rows after `context` tokens, for about so many seconds."""
        assert self._stage is not None, "load a stage first"
        found = [self._once(rows, context, head) for _ in range(1 + LEAST)][1:]
        while sum(found) < seconds:
            found.append(self._once(rows, context, head))
        return {"passes": found}

    def _once(self, rows: int, context: int, head: bool) -> float:
        assert self._stage is not None
        self._turn += 1
        placed = chain(self._stage, context, rows, self._turn)
        if not head:
            placed = replace(placed, pick_rows=())
        begin = time.perf_counter()
        done = self._stage.forward([placed])
        seconds = time.perf_counter() - begin
        assert done is not None
        return seconds


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    passes = Passes()
    with torch.inference_mode():
        for line in sys.stdin:
            ((what, how),) = json.loads(line).items()
            print(json.dumps(getattr(passes, what)(**how)), file=answers, flush=True)


if __name__ == "__main__":
    main()
