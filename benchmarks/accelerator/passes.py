"""Times passes of one stage as it is told over standard input, a JSON object a line.

The other half of `stage.py`. What fails is answered with `error`, a sentence; `sound` says whether
the next thing may still be asked of this process. Every answer has `said`: what was warned of.

    {"device": {"device", "size", "lasting"}}       answers with what it is, and its bandwidth
    {"load": {"folder", "first", "end", ...}}       answers with seconds and bytes, and whether
                                                    passes will be replayed
    {"time": {"rows", "text", "seconds", "least"}}  answers with the seconds of passes, and whether
                                                    they were replayed
    {"memory": {}}                                  answers with the most bytes since it was loaded
    {"bandwidth": {"size", "lasting"}}              drops the stage, answers with the bandwidth

A stage finds out as a node does whether replaying its passes is worth while, and computes them in
that way: what is timed is what a node would do. Without graphs, the stage that was loaded last is
kept if it is the same but for them: to round weights takes long.

A pass is timed as the thread that computes for a stage sees it: from the bytes that came to those
that go on (`passes`). Beside it, what the device takes for the blocks alone (`blocks`): where the
pass is a graph, that graph by the device's own clock; else as the stage tells. The very first pass
of a stage, and that of as many rows, in which what is done once is done, are told apart.
"""

import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import torch

from benchmarks.accelerator import device as devices
from gardener.decoding.costs import SHORT
from gardener.errors import UserError
from gardener.model.checkpoint.slices import Slice
from gardener.model.device.graphs import Graphs
from gardener.model.device.named import device_of
from gardener.protocol.messages import Open
from gardener.stages.device_passes import DevicePasses
from gardener.stages.executor import Executor
from gardener.stages.load import load_stage
from gardener.stages.measure import AWAKE, REQUEST, chain

BLOCKS = 10
"""Passes of which the blocks alone are timed."""


class Remarks(logging.Handler):
    """Keeps what is warned of until it is told."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self.say(record.getMessage())

    def say(self, line: str) -> None:
        """A sentence."""
        self._said.append(line)

    def told(self) -> list[str]:
        """Since the last time."""
        said, self._said = self._said, []
        return said


class Passes:
    """The stage that was loaded last."""

    def __init__(self, remarks: Remarks) -> None:
        """`remarks`: where a stage says how it differs from what was asked for."""
        self.remarks = remarks
        self._stage: Executor | None = None
        self._asked: object = None  # that it was loaded for
        self._device = torch.device("cpu")
        self._turn = 0

    def device(self, device: str, size: int, lasting: float) -> dict[str, Any]:
        """`size`: bytes that are read for so many seconds, to find out how fast."""
        self._device = device_of(device)
        return {**devices.facts(self._device), **self.bandwidth(size, lasting)}

    def bandwidth(self, size: int, lasting: float) -> dict[str, Any]:
        """See `device`. The stage makes room."""
        self._drop()
        speed = devices.bandwidth(self._device, size, lasting)
        devices.forget_peak(self._device)
        return {"bytes_per_second": speed}

    def load(
        self,
        folder: str,
        first: int,
        end: int,
        layers: int,
        device: str,
        *,
        graphs: bool,
        **how: Any,
    ) -> dict[str, Any]:
        """Some layers of a folder; `how`: as `load_stage` takes it."""
        asked, held = (folder, first, end, layers, device, how), Slice(first, end, layers)
        stage = self._without_graphs() if not graphs and asked == self._asked else None
        seconds = 0.0
        if stage is None:
            self._drop()
            self._device = device_of(device)
            devices.forget_peak(self._device)
            begin = time.perf_counter()
            stage = load_stage(
                Path(folder), held, device=device, graphs=graphs, say=self.remarks.say, **how
            )
            devices.wait(self._device)
            seconds = time.perf_counter() - begin
            stage.open(Open(REQUEST, 1, stage.architecture.context))
            self._stage, self._asked = stage, asked
        first_pass = self._weigh()
        return {
            "seconds": seconds,
            "bytes": stage.memory,
            "spread": stage.spread,
            "first": first_pass,
            "replayed": replayed(stage),
        }

    def _drop(self) -> None:
        self._stage = self._asked = None
        gc.collect()

    def _without_graphs(self) -> Executor | None:
        """The stage that is here, as one that was loaded without them; None: there is none that
        has any. Nothing else of a stage depends on them, see `load_stage`."""
        if self._stage is None or not isinstance(self._stage.passes, DevicePasses):
            return None
        self._stage.passes._graphs = Graphs(None)
        gc.collect()
        devices.forget_peak(self._device)
        return self._stage

    @torch.inference_mode()
    def _weigh(self) -> float:
        """As a node does before it serves. Returns the seconds of the very first pass."""
        assert self._stage is not None
        first = self._once(1, SHORT)
        awake = time.perf_counter() + (AWAKE if self._stage.loads_kernels else 0.0)
        while time.perf_counter() < awake:
            self._once(1, SHORT)
        self._stage.weigh(chain(self._stage, SHORT, 1, 0), time.perf_counter)
        return first

    @torch.inference_mode()
    def time(self, rows: int, text: int, seconds: float, least: int) -> dict[str, Any]:
        """Passes of `rows` rows after `text` tokens, for about so many seconds, `least` at
        least."""
        first = self._once(rows, text)
        found: list[float] = []
        while len(found) < least or sum(found) < seconds:
            found.append(self._once(rows, text))
        blocks = self._blocks(rows, text)
        assert self._stage is not None
        # What cannot be recorded is found out in the first pass: this holds for all that follow.
        graphs = replayed(self._stage) != 0
        return {"first": first, "passes": found, "blocks": blocks, "graphs": graphs}

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


def replayed(stage: Executor) -> int | None:
    """Requests of one pass up to which their rows are replayed, as the stage has found out; 0: none
    are; None: however many there are."""
    passes = stage.passes
    if not isinstance(passes, DevicePasses) or not passes._graphs.record:
        return 0
    return None if passes.together == inf else int(passes.together) - 1


def newest(stage: Executor) -> Callable[[], None] | None:
    """The graph that was replayed last; None: passes are not replayed."""
    if not isinstance(stage.passes, DevicePasses) or replayed(stage) == 0:
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
        # After any other error a device may answer everything with the same one.
        sound = isinstance(error, (UserError, torch.OutOfMemoryError))
        found = {"error": f"{type(error).__name__}: {told[:300]}", "sound": sound}
    return {**found, "said": passes.remarks.told()}


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    remarks = Remarks()
    logging.getLogger("gardener").addHandler(remarks)
    passes = Passes(remarks)
    for line in sys.stdin:
        print(json.dumps(answer(passes, line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
