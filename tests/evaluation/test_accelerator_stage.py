"""The part of the benchmark of stages on a GPU that times one stage: all of it but the GPU."""

import json
import logging
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from device_stages import compute_on

from benchmarks.accelerator import device
from benchmarks.accelerator import passes as passes_of_one
from benchmarks.accelerator.budget import Budget
from benchmarks.accelerator.passes import BLOCKS, Passes, Remarks, answer
from benchmarks.accelerator.processes import Lost
from benchmarks.accelerator.rings import (
    GAVE_UP,
)
from benchmarks.accelerator.stage import (
    Found,
    Unit,
    Wanted,
    _in_one,
    order,
    units_of,
)
from benchmarks.shapes import write_folder
from gardener.model.device.graphs import Recording
from gardener.stages import device_passes


class Answering:
    """A child that answers in order: an answer, or an error that is raised."""

    def __init__(self, *answers: dict[str, Any] | Lost) -> None:
        self._answers = list(answers)

    def ask(self, what: str, patience: float, **how: Any) -> dict[str, Any]:
        answer = self._answers.pop(0)
        if isinstance(answer, Lost):
            raise answer
        return dict(answer)


def in_one(wanted: Wanted, units: list[Unit], *answers: dict[str, Any] | Lost) -> Found:
    """What comes of units that a process is asked for which answers so."""
    found = Found()
    child: Any = Answering(*answers)
    _in_one(child, wanted, Path("m"), units, Budget(100.0), found, lambda: None)
    return found


def test_the_important_cells_come_first() -> None:
    units = list(units_of(True))
    assert units[:2] == [Unit("bfloat16", True), Unit("int4:bfloat16", True)]
    # Weights that take long to round are rounded once.
    again = {
        one.kind
        for one, two in pairwise(units)
        if (one, two.graphs) == (replace(two, graphs=True), False)
    }
    assert {unit.kind for unit in units} - again == {"bfloat16"}
    assert len(set(units)) == len(units) == 14
    assert {unit.graphs for unit in units_of(False)} == {False}
    pairs = order((1, 2, 16), (16, 1024))
    assert pairs == [(1, 16), (16, 16), (1, 1024), (16, 1024), (2, 16), (2, 1024)]
    wanted = Wanted.of("cuda:1", quick=False)
    assert (wanted.shape.width, wanted.shape.inner, wanted.shape.layers) == (4096, 11008, 10)
    assert not any(unit.graphs for unit in Wanted.of("mps", quick=False).units)


def test_graphs_that_are_not_used_are_named() -> None:
    wanted = Wanted.of("cuda", quick=True)
    device = {"device": "cuda", "bytes_per_second": 1e12}
    loaded = {"seconds": 1.0, "bytes": 100, "spread": 1e-3, "replayed": None, "first": 0.1}
    timed = {"first": 0.1, "passes": [1.0, 3.0, 2.0], "blocks": [1.0, 5.0], "graphs": True}
    failed = {**timed, "graphs": False, "said": ["kernels are started one by one"]}
    found = in_one(
        wanted,
        [Unit("bfloat16", True)],
        device,
        {**loaded, "said": ["weights are held otherwise"]},
        timed,
        failed,
        {**failed, "said": []},
        {**failed, "said": []},
        {"peak": 5, "reserved": 6},
        {"bytes_per_second": 2e12},
    )
    assert [each.graphs for each in found.cells] == [True, False, False, False]
    unit = "bfloat16 with graphs"
    text = "16 rows after 16 tokens"
    assert found.left_out == [f"{unit}: no graphs are used from {text} on: they failed"]
    assert found.said == [
        f"{unit}: weights are held otherwise",
        f"{unit}: kernels are started one by one",
    ]
    assert (found.loaded[0].spread, found.loaded[0].peak) == (1e-3, 5)
    assert found.cells[0].blocks_ms == 3000.0  # medians, both
    # A device that was slow at first does not make bounds lax.
    assert found.readings == [1e12, 2e12]
    first = found.cells[0]
    assert found.bound_ms(first) == pytest.approx(first.weights / 2e12 * 1e3)
    idle = in_one(wanted, [Unit("bfloat16", True)], device, {**loaded, "replayed": 0}, Lost("no"))
    assert "a node would replay no pass here" in idle.left_out[0]


def test_after_an_error_of_the_device_nothing_is_asked_of_that_process() -> None:
    wanted = Wanted.of("cuda", quick=True)
    device = {"device": "cuda", "bytes_per_second": 1e12}
    units = [Unit("fp4", False), Unit("nf4", False), Unit("float32", False)]
    found = in_one(
        wanted,
        units,
        device,
        {"error": "UserError: no bitsandbytes", "sound": True},
        {"error": "AcceleratorError: illegal address", "sound": False},
    )
    assert found.left_out == [
        "fp4 without graphs: UserError: no bitsandbytes",
        "nf4 without graphs: AcceleratorError: illegal address",
    ]
    assert units == [Unit("float32", False)]  # for the next process
    remarks = Remarks()
    timed = Passes(remarks)
    remarks.handle(logging.makeLogRecord({"msg": "slow", "levelno": logging.WARNING}))
    told = answer(timed, '{"memory": {"odd": 1}}')
    assert (told["sound"], told["said"]) == (False, ["slow"])
    lacking = {"folder": "/nowhere", "first": 0, "end": 1, "layers": 1, "device": "cpu"}
    told = answer(timed, json.dumps({"load": {**lacking, "graphs": False}}))
    assert (told["sound"], told["said"]) == (True, [])


def test_times_of_a_device_are_of_that_device(monkeypatch: pytest.MonkeyPatch) -> None:
    second = torch.device("cuda:1")
    marks: list[torch.device] = []

    class Event:
        def __init__(self, timed: bool) -> None:
            assert timed

        def synchronize(self) -> None: ...

        def elapsed_time(self, end: object) -> float:
            return 2000.0

    monkeypatch.setattr(device, "event", Event)
    monkeypatch.setattr(device, "record", lambda event, where: marks.append(where))
    assert device.seconds(second, lambda: marks.append(torch.device("cpu"))) == 2.0
    assert marks == [second, torch.device("cpu"), second]


def test_the_bandwidth_is_that_of_a_device_that_is_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([4.0, 2.0, 1.0, 3.0, *([9.0] * 10**6)])
    monkeypatch.setattr(device, "seconds", lambda *work: next(taken))
    assert device.bandwidth(torch.device("cpu"), 64, 0.01) == 64.0


def test_what_is_timed_alone_is_the_graph_of_the_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded = compute_on("a device", monkeypatch)
    wanted = Wanted.of("cpu", quick=True)
    write_folder(tmp_path / "model", wanted.shape, 64, (1,))
    timed = Passes(Remarks())
    folder, layers = str(tmp_path / "model"), wanted.shape.layers
    monkeypatch.setattr(passes_of_one, "AWAKE", 0.0)

    def load(graphs: bool) -> dict[str, Any]:
        return timed.load(folder, 1, 2, layers, "cpu", dtype="bfloat16", graphs=graphs)

    for graphs, pays, replays in ((True, inf, 4 + BLOCKS), (False, inf, 0), (True, 0.0, 0)):
        monkeypatch.setattr(device_passes, "_PAYS", pays)
        told = load(graphs)
        assert (told["replayed"] != 0) == (replays > 0)
        assert (told["seconds"] == 0) == (not graphs)  # it was here already
        recorded.replays = 0
        found = timed.time(2, 16, 0.0, 3)
        assert (len(found["passes"]), len(found["blocks"])) == (3, BLOCKS)
        assert (recorded.replays, found["graphs"]) == (replays, replays > 0)


def test_a_pass_that_cannot_be_recorded_is_none_of_a_graph(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = compute_on("a device", monkeypatch)
    monkeypatch.setattr(passes_of_one, "AWAKE", 0.0)
    monkeypatch.setattr(device_passes, "_PAYS", inf)
    wanted = Wanted.of("cpu", quick=True)
    write_folder(tmp_path / "model", wanted.shape, 64, (1,))
    timed = Passes(Remarks())
    folder, layers = str(tmp_path / "model"), wanted.shape.layers
    timed.load(folder, 1, 2, layers, "cpu", dtype="bfloat16", graphs=True)

    def fails(work: object) -> Recording:
        raise RuntimeError("no")

    monkeypatch.setattr(recorded, "record", fails)
    assert not timed.time(32, 16, 0.0, 1)["graphs"]
    assert GAVE_UP in caplog.text
