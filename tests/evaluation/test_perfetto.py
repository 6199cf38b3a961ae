"""The trace file, and the plots beside it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gardener.errors import UserError
from gardener.evaluation import plots
from gardener.evaluation.perfetto import trace_file
from gardener.evaluation.timeline import StageVisit, Timeline, VerifiedSegment

TIMELINE = Timeline(
    2,
    (
        VerifiedSegment(
            4, 3, 10.0, 10.9, (StageVisit(10.1, 10.1, 10.3), StageVisit(10.4, 10.5, 10.8))
        ),
        VerifiedSegment(
            5, 2, 10.2, 11.4, (StageVisit(10.3, 10.3, 10.6), StageVisit(10.7, 10.9, 11.3))
        ),
    ),
    (),
    ((9.5, 10.0, 8),),
    ((10.9, 2), (11.4, 1)),
)


def events(**timelines: Timeline) -> list[dict[str, Any]]:
    found = json.loads(trace_file(timelines))
    assert found["displayTimeUnit"] == "ms"
    return list(found["traceEvents"])


def test_passes_and_drafting_are_spans_of_threads() -> None:
    found = [event for event in events(plain=TIMELINE) if event["ph"] == "X"]
    assert [(e["tid"], e["ts"], e["dur"], e["name"]) for e in found] == [
        (0, 0.0, 500_000.0, "draft"),
        (1, 600_000.0, 200_000.0, "segment 4"),
        (1, 800_000.0, 300_000.0, "segment 5"),
        (2, 1_000_000.0, 300_000.0, "segment 4"),
        (2, 1_400_000.0, 400_000.0, "segment 5"),
    ]
    assert found[1]["args"] == {"segments": [4], "rows": 3}


def test_segments_fly_and_tokens_come() -> None:
    found = events(plain=TIMELINE)
    segments = [(e["ph"], e["id"], e["ts"]) for e in found if e["ph"] in "be"]
    assert segments == [
        ("b", 4, 500_000.0),
        ("e", 4, 1_400_000.0),
        ("b", 5, 700_000.0),
        ("e", 5, 1_900_000.0),
    ]
    tokens = [(e["name"], e["ts"]) for e in found if e["ph"] == "i"]
    assert tokens == [("2 tokens", 1_400_000.0), ("1 tokens", 1_900_000.0)]


def test_each_policy_is_a_process_with_names() -> None:
    found = events(plain=TIMELINE, gardener=TIMELINE, none=Timeline(2, (), (), (), ()))
    names = {e["pid"]: e["args"]["name"] for e in found if e["name"] == "process_name"}
    assert names == {1: "plain", 2: "gardener", 3: "none"}
    threads = [e["args"]["name"] for e in found if e["name"] == "thread_name" and e["pid"] == 2]
    assert threads == ["drafter", "stage 1", "stage 2"]


def test_plots_are_drawn(tmp_path: Path) -> None:
    one = {"tokens_per_second": {"mean": 2.0}, "speedup": {"plain": {"mean": 1.5, "worst": 1.0}}}
    none = {
        "tokens_per_second": {"mean": None},
        "speedup": {"plain": {"mean": None, "worst": None}},
    }
    sets = {"a": {"policies": {"plain": one, "serial": none}}}
    plots.bars("local 2", sets, ["plain", "serial"], tmp_path / "bars.png")
    curves = {"gpu": {"serial": {1: 1.0, 4: 1.5}}, "cpu": {"serial": {1: 1.0}}}
    plots.speedups("plain", curves, tmp_path / "speedup.png")
    plots.draw_timelines(
        "local 2", {"plain": TIMELINE, "serial": TIMELINE}, tmp_path / "timeline.png"
    )
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG"), path
    plots.draw_timelines("local 2", {"plain": Timeline(2, (), (), (), ())}, tmp_path / "none.png")
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["bars", "speedup", "timeline"]


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'gardener-node\[plots\]'"):
        plots.require()
