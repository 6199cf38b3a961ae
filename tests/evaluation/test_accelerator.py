"""The benchmark of stages on a GPU (`benchmarks/accelerator`): its rings, processes and parts."""

import json
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.accelerator import parts, processes, whole
from benchmarks.accelerator.__main__ import missing
from benchmarks.accelerator.budget import Budget
from benchmarks.accelerator.curve import beside
from benchmarks.accelerator.observed import Observer
from benchmarks.accelerator.parts import Asked
from benchmarks.accelerator.processes import Child, Lost, environment, run
from benchmarks.accelerator.report import Report
from benchmarks.accelerator.rings import (
    Evaluated,
    Pass,
    Ring,
    _take,
    gave_up,
    lines,
    passes,
)
from benchmarks.accelerator.stage import (
    UNMEASURED,
)
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
        heard: list[str] = []
        ring: Any = None
        hear = observer.hearing(lambda ring, stage, line: heard.append(line))
        hear(ring, 1, "kernels are started one by one from now on, which is slower: no")
        stream.write('{"passes": ["gard')  # it was killed here
    found = lines(path)
    assert list(passes(found)) == [Pass("gardener", 40, 0, 3, 1200)]
    assert found[0] == {"text": {"policy": "plain"}}
    assert gave_up(found)
    assert not gave_up(found[:2])
    assert len(heard) == 1
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


def test_a_file_that_cannot_be_written_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[object] = []

    def one(asked: Asked, budget: Budget, report: Report) -> None:
        begun.append(report)
        report.stage.said.append("it was slow")
        (tmp_path / "there").rename(tmp_path / "gone")  # nothing can be written any more

    monkeypatch.setitem(parts.PARTS, "stage", one)
    monkeypatch.setattr("signal.signal", lambda *how: None)
    given = Namespace(seconds=9.0, device="cpu", model="m", data=None, quick=True, parts=["stage"])
    given.json = tmp_path / "there" / "found.json"
    with pytest.raises(SystemExit, match=r"--json .*: no such file or directory: name a file"):
        whole.run(given, time.monotonic())
    assert not begun
    (tmp_path / "there").mkdir()
    with pytest.raises(FileNotFoundError):
        whole.run(given, time.monotonic())
    assert "stage: it was slow" in capsys.readouterr().out


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
    monkeypatch.setattr("benchmarks.accelerator.__main__.find_spec", lambda name: None)
    assert "rich" in missing(["stage"], "a.gguf")
    assert {"attrs", "pyyaml"} <= set(missing(["speed"], "a.gguf"))


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
    assert found["left_out"]["stage"] == ["with graphs: cpu has none", UNMEASURED]
    assert len(found["stage"]["readings"]) == 2
    assert found["stage"]["loaded"][0]["bytes"] == 2 * 8 * 64 * (4 * 64 + 3 * 128)
    assert found["seconds"]["stage"] < time.monotonic() - began
    assert "texts" in done.stdout
