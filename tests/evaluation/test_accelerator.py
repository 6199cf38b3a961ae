"""The benchmark of stages on a GPU (`benchmarks/accelerator`): all of it but the GPU."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from device_stages import compute_on
from rich.console import Console

from benchmarks.accelerator import parts, processes
from benchmarks.accelerator.__main__ import missing
from benchmarks.accelerator.budget import Budget
from benchmarks.accelerator.curve import beside
from benchmarks.accelerator.observed import Observer
from benchmarks.accelerator.parts import Asked
from benchmarks.accelerator.passes import BLOCKS, Passes
from benchmarks.accelerator.processes import Child, Lost, environment, run
from benchmarks.accelerator.report import Report
from benchmarks.accelerator.rings import Evaluated, Pass, Ring, Verified, _take, lines, passes
from benchmarks.accelerator.stage import Cell, Unit, Wanted, order, units_of
from benchmarks.accelerator.tables import show
from benchmarks.shapes import write_folder
from gardener.decoding.costs import Costs
from gardener.protocol.messages import Card, Timing

CARD: dict[str, Any] = {
    "stage": 1,
    "name": "one",
    "version": "1",
    "first": 0,
    "end": 4,
    "layers": 4,
    "width": 8,
    "model": "m",
    "dtype": "bfloat16",
    "quant": "none",
    "memory": 1,
    "costs": [[1, 1000], [16, 1500]],
    "long": [[1, 2000], [16, 2500]],
    "context": 1024,
}
HANG = "import sys, time; sys.stdin.readline(); print('tired', file=sys.stderr); time.sleep(60)"
"""A program that takes what it is told and never answers."""


def cell(kind: str, rows: int, ms: float, text: int = 16) -> Cell:
    return Cell(kind, True, rows, text, 1.0, 0, ms, ms, ms, ms, 10)


def gone(pid: int) -> bool:
    """Whether it is, but for somebody who asks how it ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Clock:
    """Tells what it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_a_part_leaves_the_others_have() -> None:
    clock = Clock()
    whole = Budget(100.0, clock)
    assert whole.share(1, 4).seconds == 25
    clock.now = 10.0
    assert whole.share(1, 3).seconds == 30
    assert whole.share(2, 1).seconds == 90  # never more than there is
    clock.now = 200.0
    assert whole.left == whole.share(1, 1).seconds == 0


def test_the_important_cells_come_first() -> None:
    units = list(units_of(True))
    assert units[:2] == [Unit("bfloat16", True), Unit("int4:bfloat16", True)]
    assert len(set(units)) == len(units) == 14
    assert {unit.graphs for unit in units_of(False)} == {False}
    pairs = order((1, 2, 16), (16, 1024))
    assert pairs == [(1, 16), (16, 16), (1, 1024), (16, 1024), (2, 16), (2, 1024)]
    wanted = Wanted.of("cuda:1", quick=False)
    assert (wanted.shape.width, wanted.shape.inner, wanted.shape.layers) == (4096, 11008, 10)
    assert not any(unit.graphs for unit in Wanted.of("mps", quick=False).units)


def test_a_child_that_hangs_or_ends_is_told_and_gone() -> None:
    with Child("it", [sys.executable, "-c", HANG]) as child:
        pid = child._process.pid
        with pytest.raises(Lost, match="it hung at load: no answer in 0 s"):
            child.ask("load", 0.2)
    assert gone(pid)
    with (
        Child("it", [sys.executable, "-c", "import sys; input(); sys.exit('no memory')"]) as child,
        pytest.raises(Lost, match="it ended at load: no memory"),
    ):
        child.ask("load", 30.0)


def test_a_command_that_does_not_end_is_killed_with_all_that_it_began(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes, "GRACE", 0.2)
    deaf = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
        "start_new_session=True); print(child.pid, flush=True); "
        "print('half of it', file=sys.stderr, flush=True); time.sleep(60)"
    )
    ran = run([sys.executable, "-c", deaf], 1.0)
    assert ran.status is None
    assert "was not done after 1 s (half of it)" in ran.said
    assert ran.seconds < 20
    assert gone(int(ran.out))
    done = run([sys.executable, "-c", "import sys; print('{}'); sys.exit(1)"], 30.0)
    assert (done.status, done.out) == (1, "{}\n")
    assert run([sys.executable, "-c", "import sys; sys.exit('no GPU')"], 30.0).said == "no GPU"


def test_passes_are_seen_with_their_policy(tmp_path: Path) -> None:
    path = tmp_path / "seen.jsonl"
    costs = Costs.of([Card(**CARD)])
    with path.open("a") as stream:
        observer = Observer(stream)
        observer.write("text", {"policy": "plain"})
        observed = observer.observing(Costs.observe)
        observer.policy = "gardener"
        observed(costs.at(40), 3, 0.5, [Timing(5, 1200, 3), Timing(5, 0, 0)])
        stream.write('{"passes": ["gard')  # it was killed here
    found = lines(path)
    assert list(passes(found)) == [Pass("gardener", 40, 0, 3, 1200)]
    assert found[0] == {"text": {"policy": "plain"}}
    assert costs.stage(0, 3) > Costs.of([Card(**CARD)]).stage(0, 3)  # the ring has learned from it


def test_passes_stand_beside_the_curve_for_their_rows_and_text() -> None:
    seen = [
        *(Pass("plain", 16, 0, 1, micros) for micros in (1000, 1100, 1200)),
        Pass("gardener", 1024, 0, 16, 5000),
        Pass("gardener", 16, 0, 9, 1267),
    ]
    tree, plain = beside(seen, [CARD])
    assert (plain.policy, plain.stage, plain.rows, plain.passes) == ("plain", 1, 1, 3)
    assert plain.expected_ms == pytest.approx(1.0)
    assert (plain.ratio, plain.middle) == pytest.approx((1.1, 1.1))
    assert plain.within
    assert (tree.rows, tree.passes) == (16, 2)  # 9 rows count there
    assert tree.expected_ms == pytest.approx((2.5 + 1.267) / 2, rel=1e-3)
    assert tree.middle == pytest.approx(1.5, rel=1e-3)
    assert not tree.within
    assert list(beside(seen, [])) == []


def test_what_eval_tells_is_understood() -> None:
    speeds = {"tokens_per_second": {"median": 60.0}, "speedup": {"plain": {"median": 1.6}}}
    told = {
        "rings": {"local": {"cards": [CARD], "exactness": "the ring is exact"}},
        "figures": {
            "local": {
                "chat": {"prompts": 1, "policies": {}},
                "overall": {"prompts": 6, "policies": {"gardener": speeds}},
            }
        },
        "differences": [{"policy": "serial"}],
        "near_ties": 1,
    }
    found = Evaluated(Ring("bfloat16"), 1.0)
    _take(found, told)
    assert (found.prompts, found.rate("gardener"), found.gain("gardener")) == (6, 60.0, 1.6)
    assert found.rate("plain") is None
    assert found.cards == [CARD]
    cut_off = Evaluated(Ring("bfloat16"), 1.0)
    _take(cut_off, {})
    assert cut_off.gain("gardener") is None


def test_options_of_a_ring() -> None:
    ring = Ring("int4:bfloat16", graphs=False, draft_device="cuda")
    given = ring.options("a.gguf", "cuda")
    assert given[-1] == "--no-graphs"
    pairs = dict(zip(given[:-1:2], given[1:-1:2], strict=True))
    assert (pairs["--dtype"], pairs["--quant"]) == ("bfloat16", "int4")
    assert (pairs["--local"], pairs["--draft-device"]) == ("2", "cuda")


def test_aims_are_met_missed_or_not_measured(tmp_path: Path) -> None:
    report = Report({}, tmp_path / "found.json")
    assert {aim.met for aim in report.aims()} == {None}
    report.stage.device = {"device": "cuda", "bytes_per_second": 3e12}
    report.stage.cells = [
        cell("bfloat16", 1, 1.5),
        cell("bfloat16", 16, 1.6),
        cell("bfloat16", 32, 9.0),  # more rows than the aim is about
        cell("bfloat16", 16, 9.0, text=4096),  # and a longer text
        cell("int4:bfloat16", 1, 0.6),
        cell("int4:bfloat16", 16, 1.5),
    ]
    difference = {"policy": "serial", "position": 3, "prompt": 1, "outcome": "tie", "gap": 0.01}
    tied = Verified(Ring("float16"), 1.0, 107, 1, 0, "not exact", [difference])
    report.verified = [tied, replace(tied, ring=Ring("bfloat16"), different=1)]
    figures = {"speedup": {"plain": {"median": 1.4}}}
    report.evaluated = [Evaluated(Ring("bfloat16"), 1.0, 6, {"gardener": figures})]
    met = {aim.what.split(",")[0] + aim.what.split(",")[-1]: aim for aim in report.aims()}
    assert [aim.met for aim in report.aims()] == [True, False, True, False, False, None]
    assert "above it: 16 rows" in (met["int4 1 to 16 rows: times bfloat16"].found or "")
    report.save()
    kept = json.loads((tmp_path / "found.json").read_text())
    assert [each["met"] for each in kept["aims"]] == [aim.met for aim in report.aims()]
    assert kept["stage"]["cells"][0]["ratio"] == 1.5
    console = Console(width=170, record=True, file=StringIO())
    show(report, console)
    told = console.export_text()
    assert "float16: serial left plain at token 3 of prompt 1, tie" in told
    assert "1.50 (1.50) 1.50" in told


def test_rings_for_which_there_is_no_time_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    def measured(wanted: parts.Speed, asked: Asked, time: float) -> Evaluated:
        clock.now += 60.0
        return Evaluated(wanted.ring, 60.0, error="cut off")

    monkeypatch.setattr(parts, "_evaluated", measured)
    report = Report({}, left_out={"speed": [], "curve": []})
    budget = Budget(100.0, clock)
    asked = Asked("cuda", "smollm2-135m")
    parts.run_speed(asked, budget, report)
    rings = [each.ring for each in parts.speeds("cuda")]
    assert [each.ring for each in report.evaluated] == rings[:2]
    assert report.left_out["speed"] == [f"{ring}: no time" for ring in rings[2:]]
    parts.run_curve(asked, budget, report)
    assert report.left_out["curve"][0].endswith("no passes; cut off")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "benchmarks.accelerator.__main__.find_spec",
        lambda name: None if name in ("gguf", "msgspec") else object(),
    )
    assert missing(["stage"], "a.gguf") == ["msgspec"]
    assert missing(["stage", "speed"], "a.gguf") == ["msgspec", "gguf"]


def test_what_is_timed_alone_is_the_graph_of_the_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded = compute_on("a device", monkeypatch)
    wanted = Wanted.of("cpu", quick=True)
    write_folder(tmp_path / "model", wanted.shape, 64, range(1, wanted.shape.layers - 1))
    timed = Passes()
    first, end, layers = 1, wanted.shape.layers - 1, wanted.shape.layers
    folder = str(tmp_path / "model")
    for graphs, replays in ((True, 4 + BLOCKS), (False, 0)):
        recorded.replays = 0
        timed.load(folder, first, end, layers, "cpu", dtype="bfloat16", graphs=graphs)
        found = timed.time(2, 16, 0.0, 3)
        assert (len(found["passes"]), len(found["blocks"])) == (3, BLOCKS)
        assert recorded.replays == replays


def test_a_quick_run_on_the_cpu(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    began = time.monotonic()
    command = [sys.executable, "-P", "-m", "benchmarks.accelerator", "--device", "cpu", "--quick"]
    done = subprocess.run(
        [*command, "--parts", "stage", "--json", str(path), "--seconds", "120"],
        env=environment({"OMP_NUM_THREADS": "1"}),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(path.read_text())
    cells = [(each["rows"], each["text"]) for each in found["stage"]["cells"]]
    assert cells == [(1, 16), (16, 16), (1, 300), (16, 300)]
    assert found["left_out"]["stage"] == ["with graphs: cpu has none"]
    assert found["stage"]["loaded"][0]["bytes"] == 2 * 8 * 64 * (4 * 64 + 3 * 128)
    assert found["seconds"]["stage"] < time.monotonic() - began
    assert "texts" in done.stdout
