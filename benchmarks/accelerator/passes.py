"""Times passes of one stage as it is told over standard input, a JSON object a line.

The other half of `stage.py`. What fails is answered with `error`, a sentence.

    {"device": {"device", "size"}}                  answers with what it is, and its bandwidth
    {"load": {"folder", "first", "end", ...}}       answers with seconds and bytes
    {"time": {"rows", "text", "seconds", "least"}}  answers with the seconds of passes
    {"memory": {}}                                  answers with the most bytes since it was loaded

A pass is timed as the thread that computes for a stage sees it: from the bytes that came to those
that go on (`passes`). Beside it, what the device takes for the blocks alone (`blocks`): where the
pass is a graph, that graph by the device's own clock; else as the stage tells. The very first pass,
in which what is done once is done, is told apart.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.accelerator import device as devices
from gardener.model.checkpoint.slices import Slice
from gardener.model.device.named import device_of
from gardener.protocol.messages import Open
from gardener.stages.device_passes import DevicePasses
from gardener.stages.executor import Executor
from gardener.stages.load import load_stage
from gardener.stages.measure import REQUEST, chain

BLOCKS = 10
"""Passes of which the blocks alone are timed."""


class Passes:
    """The stage that was loaded last."""

    def __init__(self) -> None:
        self._stage: Executor | None = None
        self._device = torch.device("cpu")
        self._turn = 0

    def device(self, device: str, size: int) -> dict[str, Any]:
        """`size`: bytes that are read to find out how fast."""
        self._device = device_of(device)
        speed = devices.bandwidth(self._device, size)
        devices.forget_peak(self._device)
        return {**devices.facts(self._device), "bytes_per_second": speed}

    def load(
        self, folder: str, first: int, end: int, layers: int, device: str, **how: Any
    ) -> dict[str, Any]:
        """Some layers of a folder; `how`: as `load_stage` takes it."""
        self._stage = None
        gc.collect()
        self._device = device_of(device)
        devices.forget_peak(self._device)
        begin = time.perf_counter()
        stage = load_stage(Path(folder), Slice(first, end, layers), device=device, **how)
        devices.wait(self._device)
        seconds = time.perf_counter() - begin
        stage.open(Open(REQUEST, 1, stage.architecture.context))
        self._stage = stage
        return {"seconds": seconds, "bytes": stage.memory, "spread": stage.spread}

    @torch.inference_mode()
    def time(self, rows: int, text: int, seconds: float, least: int) -> dict[str, Any]:
        """Passes of `rows` rows after `text` tokens, for about so many seconds, `least` at
        least."""
        first = self._once(rows, text)
        found: list[float] = []
        while len(found) < least or sum(found) < seconds:
            found.append(self._once(rows, text))
        return {"first": first, "passes": found, "blocks": self._blocks(rows, text)}

    def memory(self) -> dict[str, Any]:
        """In bytes; 0: the device does not tell."""
        return {"peak": devices.peak(self._device), "reserved": devices.reserved(self._device)}

    def _once(self, rows: int, text: int) -> float:
        assert self._stage is not None, "load a stage first"
        self._turn += 1
        placed = chain(self._stage, text, rows, self._turn)
        begin = time.perf_counter()
        done = self._stage.run([placed])
        seconds = time.perf_counter() - begin
        assert done is not None
        return seconds

    def _blocks(self, rows: int, text: int) -> list[float]:
        """Of the pass that was computed last."""
        assert self._stage is not None
        replay = newest(self._stage)
        if replay is not None:
            return [devices.seconds(self._device, replay) for _ in range(BLOCKS)]
        placed = [chain(self._stage, text, rows, turn) for turn in range(BLOCKS)]
        return [self._stage.timed([each], time.perf_counter)[0] for each in placed]


def newest(stage: Executor) -> Callable[[], None] | None:
    """The graph that was replayed last; None: there is none."""
    if not isinstance(stage.passes, DevicePasses):
        return None
    recordings = stage.passes._graphs._recordings
    return next(reversed(recordings.values())).replay if recordings else None


def answer(passes: Passes, line: str) -> dict[str, Any]:
    """What is said to a line."""
    ((what, how),) = json.loads(line).items()
    try:
        found: dict[str, Any] = getattr(passes, what)(**how)
    except Exception as error:  # whatever fails, the others shall still be measured
        told = " ".join(str(error).split())
        return {"error": f"{type(error).__name__}: {told[:300]}"}
    return found


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    passes = Passes()
    for line in sys.stdin:
        print(json.dumps(answer(passes, line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
