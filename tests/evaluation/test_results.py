"""What is kept of an evaluation, and what is left in its folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_perfetto import TIMELINE
from test_tally import run

from gardener.cli.measuring import Evaluation, finish
from gardener.cli.options import OutputOptions
from gardener.cli.sampling import SamplingOptions
from gardener.decoding.policy import Bounds
from gardener.errors import UserError
from gardener.evaluation.concurrency import Load, LoadAnswer
from gardener.evaluation.datasets import Conversation
from gardener.evaluation.plan import Place, Plan
from gardener.evaluation.report import write_plots, write_traces
from gardener.evaluation.results import Difference, Results, Skipped, Written, new_folder
from gardener.protocol.sampling import Sampling

PLAN = Plan((Conversation("a", 1, ("hi",)),), ("plain", "serial"), 8, 1)
DIFFERENCE = Difference(
    "a", 3, 1, 17, ("local 2", "local 4"), ("plain", "serial"), ("the cat", "the dog")
)


def results(stages: tuple[int, ...] = (2,)) -> Results:
    made = Results({"command": "gardener eval"}, PLAN)
    for n in stages:
        place = Place("local", n)
        made.add_ring(place, [{"name": "oak"}] * n, "ngram + eagle (int8)")
        made.timelines[str(place)] = {"plain": TIMELINE}
        made.runs += [run(place=str(place)), run(place=str(place), policy="serial", decode=5.0 / n)]
    return made


def saved(made: Results, folder: Path) -> dict[str, Any]:
    return dict(json.loads(made.save(folder).read_text()))


def test_all_is_in_the_file(tmp_path: Path) -> None:
    made = results()
    made.written["a", 1, 1] = Written("local 2", "plain", "hi", (1, 2), "there")
    found = saved(made, tmp_path)
    assert (found["format"], found["ended"], found["agree"]) == (3, "under way", True)
    assert found["command"] == "gardener eval"
    assert found["rings"]["local 2"]["stages"] == 2
    assert not found["rings"]["local 2"]["simulated"]
    speedup = found["figures"]["local 2"]["a"]["policies"]["serial"]["speedup"]["plain"]["mean"]
    assert speedup == pytest.approx(4.0)
    assert [each["policy"] for each in found["runs"]] == ["plain", "serial"]
    assert [each["prefill_of"] for each in found["runs"]] == ["plain", "plain"]
    assert [each["tokens_per_second"] for each in found["runs"]] == pytest.approx([1.0, 4.0])
    assert found["answers"][0]["text"] == "there"
    assert list(tmp_path.iterdir()) == [tmp_path / "results.json"]
    assert not {"runs", "answers"} & made.brief().keys()


def test_a_ring_says_what_ran_in_it_and_what_else_there_is_to_know(tmp_path: Path) -> None:
    made = Results({}, PLAN)
    place = Place("simulate", 4, profile="gpu", draft="eagle")
    facts = {"holder": "its own time is charged"}
    made.add_ring(place, [{}] * 4, "eagle (float32)", {"plain": "Plain(rows=1)"}, facts)
    ring = saved(made, tmp_path)["rings"]["simulated 4 gpu, draft eagle"]
    assert (ring["draft"], ring["drafters"], ring["profile"]) == ("eagle", "eagle (float32)", "gpu")
    assert (ring["policies"], ring["facts"]) == ({"plain": "Plain(rows=1)"}, facts)


def test_several_requests_at_once_are_in_the_file_and_have_a_plot(tmp_path: Path) -> None:
    made = results()
    made.plan = replace(PLAN, levels=(1, 2))
    made.sampling = Sampling(0.7, seed=5)
    answers = tuple(LoadAnswer("a", line, 1, 0.0, 11, 1.0, 11.0, "length") for line in (1, 2))
    made.loads.append(Load("local 2", "plain", 2, 1, 11.0, answers))
    found = saved(made, tmp_path)
    assert (found["sampling"]["temperature"], found["sampling"]["seed"]) == (0.7, 5)
    rates = {
        policy: {level: each["tokens_per_second"] for level, each in levels.items()}
        for policy, levels in found["concurrency"]["local 2"].items()
    }
    assert rates == {"plain": {"1": 1.0, "2": 2.0}, "serial": {"1": pytest.approx(11 / 3.5)}}
    assert found["loads"][0]["answers"][1]["line"] == 2
    assert "concurrency-local-2.png" in [path.name for path in write_plots(made, tmp_path)]


def test_what_went_wrong_is_in_the_file(tmp_path: Path) -> None:
    made = results()
    made.ended = "interrupted"
    made.differences.append(DIFFERENCE)
    made.skipped["a", 2, 1] = Skipped("a", 2, 1, "too long")
    made.runs.append(run(line=4, policy="serial", error="stage 1 could not compute it"))
    found = saved(made, tmp_path)
    assert (found["ended"], found["agree"]) == ("interrupted", False)
    assert found["differences"][0]["around"] == ["the cat", "the dog"]
    assert found["skipped"] == [{"data": "a", "line": 2, "turn": 1, "why": "too long"}]
    (failure,) = found["failures"]
    assert (failure["line"], failure["policy"]) == (4, "serial")
    assert str(made.failures[0]) == (
        "FAILED: a, line 4, turn 1: serial (local 2), run 1: stage 1 could not compute it"
    )


def test_what_went_wrong_is_said() -> None:
    assert str(DIFFERENCE) == (
        "THE TEXTS DIFFER: a, line 3, turn 1: serial (local 4) left plain (local 2) at token 17\n"
        "  plain (local 2): 'the cat'\n"
        "  serial (local 4): 'the dog'"
    )
    assert str(Skipped("a", 2, 1, "too long")) == "skipped a, line 2, turn 1: too long"


def test_older_results_are_not_overwritten(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "a" / "b")
    assert new_folder(folder) == folder
    results().save(folder)
    with pytest.raises(UserError, match=r"results\.json of an earlier evaluation"):
        new_folder(folder)
    with pytest.raises(UserError, match="cannot be made"):
        new_folder(folder / "results.json" / "c")


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*choose another folder with --out"):
        results().save(tmp_path / "gone")


def test_what_cannot_be_written_is_shown_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="cannot write"):
        finish(
            Evaluation(
                results(),
                tmp_path / "gone",
                Bounds(),
                SamplingOptions(),
                OutputOptions(),
                no_plots=True,
            )
        )
    assert "serial" in capsys.readouterr().out


def test_the_tables_end_with_how_exact_the_ring_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = results()
    found.add_ring(Place("local", 2), [{}] * 2, "none", exactness="the ring is exact: yes")
    options = OutputOptions()
    finish(Evaluation(found, tmp_path, Bounds(), SamplingOptions(), options, no_plots=True))
    assert capsys.readouterr().out.splitlines()[-1] == "the ring is exact: yes"
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["rings"]["local 2"]["exactness"] == "the ring is exact: yes"


def test_plots_and_traces_by_ring(tmp_path: Path) -> None:
    one = results()
    assert [path.name for path in write_traces(one, tmp_path)] == ["trace-local-2.json"]
    names = [path.name for path in write_plots(one, tmp_path)]
    assert names == ["bars-local-2.png", "timeline-local-2.png"]
    names = [path.name for path in write_plots(results((1, 2)), tmp_path)]
    assert names[-2:] == ["speedup-over-plain.png", "speedup-over-serial.png"]
    assert write_plots(Results({}, PLAN), tmp_path) == []


def test_curves_of_other_drafters_are_apart(tmp_path: Path) -> None:
    """Of one number of stages each, there is no curve."""
    made = Results({}, PLAN)
    for stages, draft in ((2, "auto"), (4, "eagle")):
        place = Place("local", stages, draft=draft)
        made.add_ring(place, [{}] * stages, draft)
        made.runs += [run(place=str(place)), run(place=str(place), policy="serial")]
    names = [path.name for path in write_plots(made, tmp_path)]
    assert names == ["bars-local-2--draft-auto.png", "bars-local-4--draft-eagle.png"]
