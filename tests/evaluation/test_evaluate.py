"""`gardener eval` on real stages of a tiny model: what it writes, and how loudly it fails."""

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny

from gardener.cli import evaluate, program
from gardener.cli.evaluate import _drafts
from gardener.cli.main import app
from gardener.cli.options import DraftOptions
from gardener.errors import UserError
from gardener.evaluation import runner
from gardener.holder.answer import Answer, answer

Answering = Callable[..., Awaitable[Answer]]
TEMPLATE = "{% for m in messages %}{{ 'w1 ' + m['content'] + ' ' }}{% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose words are w0 to w60."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.make("llama", folder)
    tiny.name_words(folder, TEMPLATE)
    return folder


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is not to be ended, however slow the machine is."""
    monkeypatch.setattr(program, "CLOSING", 600.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "chat.jsonl"
    rows: list[dict[str, Any]] = [
        {"turns": ["w5 w6 w7 w5 w6 w7", "w8 w9"]},
        {"turns": [" ".join(["w3"] * 300)]},
        {"turns": ["w20 w21"]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def run(model: Path, out: Path, *options: str) -> int:
    """The command, in this process; returns its status."""
    command = ["gardener", "eval", "--model", str(model), "--threads", "1", "--out", str(out)]
    before, sys.argv = sys.argv, [*command, *options]
    try:
        program.program(app)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    finally:
        sys.argv = before
    return 0


def results(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "results.json").read_text()))


def changed(change: Callable[[Answer, int], None]) -> Answering:
    """Real answers, into which somebody meddles; the warm-up's count from 0 too."""
    count = -1

    async def meddled(holder: Any, prompter: Any, policy: Any, wanted: Any) -> Answer:
        nonlocal count
        count += 1
        got = await answer(holder, prompter, policy, wanted)
        change(got, count)
        return got

    return meddled


def test_all_policies_on_real_stages(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tmp_path / "lines.txt"
    more.write_text("w30 w31\n")
    out = tmp_path / "out"
    options = ("--max-new-tokens", "24", "--repeat", "2", "--policies", "plain,serial,gardener")
    files = ("--data", str(data), str(more))
    assert run(model, out, "--local", "2", *options, *files, "--json") == 0
    found, said = results(out), capsys.readouterr()
    assert (found["ended"], found["agree"], found["differences"]) == ("done", True, [])
    assert [(each["line"], each["turn"]) for each in found["skipped"]] == [(2, 1)]
    assert "skipped chat, line 2, turn 1: the prompt has 301 tokens" in said.err
    assert len(found["runs"]) == 4 * 3 * 2
    assert {run["tokens"] for run in found["runs"]} == {24}
    assert found["command"].startswith("gardener eval --model ")
    assert found["settings"]["max_new_tokens"] == 24
    assert found["rings"]["local 2"]["stages"] == 2
    assert set(found["figures"]["local 2"]) == {"chat", "lines", "overall"}
    plain = found["figures"]["local 2"]["overall"]["policies"]["plain"]
    assert plain["tokens_per_tick"] == 1.0
    assert plain["tokens_per_second"]["median"] > 0
    assert plain["end_to_end"]["mean"] > 0
    assert plain["speedup"]["plain"] == {"mean": 1.0, "median": 1.0, "worst": 1.0}
    assert list(plain["speedup"]) == ["plain", "serial", "gardener"]
    assert found["figures"]["local 2"]["overall"]["prefill"]["of"] == {"plain": 4}
    for machine in plain["tick"]["machines"]:
        assert sum(machine.values()) == pytest.approx(1.0)
    assert plain["tick"]["missed"] == pytest.approx(1.0)  # nothing is guessed: a round_trip a token
    two = next(each for each in found["answers"] if each["turn"] == 2)
    assert two["prompt"] == "w8 w9"
    assert {path.name for path in out.iterdir()} == {
        "results.json",
        "trace-local-2.json",
        "bars-local-2.png",
        "timeline-local-2.png",
    }
    shown = json.loads(said.out)
    assert shown["figures"] == found["figures"]


def test_several_requests_at_once_and_a_seed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines.txt").write_text("w1 w2\nw3 w4\nw5\n")
    out = tmp_path / "out"
    options = ("--local", "1", "--max-new-tokens", "8", "--policies", "plain,gardener")
    more = ("--concurrency", "1,2", "--temperature", "0.7", "--seed", "5", "--ignore-eos")
    assert run(model, out, *options, *more, "--raw", str(tmp_path / "lines.txt")) == 0
    found, said = results(out), capsys.readouterr()
    assert (found["format"], found["agree"]) == (3, True)
    assert (found["sampling"]["temperature"], found["sampling"]["seed"]) == (0.7, 5)
    assert (found["settings"]["temperature"], found["settings"]["concurrency"]) == (0.7, "1,2")
    assert "sampling: temperature 0.7, seed 5" in said.err
    assert {run["tokens"] for run in found["runs"]} == {8}
    assert [(load["policy"], load["requests"]) for load in found["loads"]] == [
        ("plain", 2),
        ("gardener", 2),
    ]
    assert [len(load["answers"]) for load in found["loads"]] == [3, 3]
    assert {*found["concurrency"]["local 1"]["gardener"]} == {"1", "2"}
    assert "local 1: several requests at once, prompts included" in said.out
    assert (out / "concurrency-local-1.png").exists()


def test_several_sets_of_drafters_in_one_report(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines.txt").write_text("w1 w2 w1 w2\n")
    out = tmp_path / "out"
    options = ("--local", "1", "--max-new-tokens", "8", "--policies", "plain,serial", "--no-plots")
    drafts = ("--draft", "ngram", "--draft", "none")
    assert run(model, out, *options, *drafts, "--raw", str(tmp_path / "lines.txt")) == 0
    found, said = results(out), capsys.readouterr()
    rings = {name: ring["drafters"] for name, ring in found["rings"].items()}
    assert rings == {"local 1, draft ngram": "ngram", "local 1, draft none": "none"}
    assert found["settings"]["draft"] == ["ngram", "none"]
    assert [run["place"] for run in found["runs"]] == [ring for ring in rings for _ in range(2)]
    assert found["rings"]["local 1, draft none"]["policies"]["serial"].startswith("Serial(")
    for ring in rings:
        assert f"\n{ring}\n" in said.out


def test_a_file_may_name_one_set_of_drafters_or_several(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    for said, meant in (('"ngram,eagle"', ["ngram,eagle"]), ('["auto", "none"]', ["auto", "none"])):
        path.write_text(f'[eval]\nmodel = "m"\ndraft = {said}\n')
        _, bound, _ = app.parse_args(["eval", "--config", str(path)])
        assert bound.arguments["holder"].model.model == "m"
        assert bound.arguments["rings"].draft == meant


def test_a_head_is_for_those_that_can_have_one() -> None:
    options = DraftOptions(head="my-head")
    found = _drafts(["auto", "ngram, eagle", "ngram"], options)
    assert {text: (each.kinds, each.head) for text, each in found.items()} == {
        "auto": (None, "my-head"),
        "ngram,eagle": (("ngram", "eagle"), "my-head"),
        "ngram": (("ngram",), None),
    }
    with pytest.raises(UserError, match="--head is given, but --draft leaves eagle out"):
        _drafts(["ngram", "none"], options)


def test_other_texts_and_a_lost_stage_fail_loudly(
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def spoil(got: Answer, count: int) -> None:
        if got.figures.policy == "serial" and count == 5:
            got.tokens[7] = 60 - got.tokens[7]
        if count == 6:
            psutil.Process().children()[-1].kill()

    monkeypatch.setattr(runner, "answer", changed(spoil))
    out = tmp_path / "out"
    options = ("--max-new-tokens", "24", "--policies", "plain,serial", "--no-plots")
    assert run(model, out, *options, "--patience-lost", "0", str(data)) == 1
    found, said = results(out), capsys.readouterr()
    assert (
        "THE TEXTS DIFFER: chat, line 1, turn 1: serial (local 2) left plain (local 2) at token 7"
        in (said.err)
    )
    assert "error: stage " in said.err
    assert " was lost " in found["ended"]
    assert not found["agree"]
    assert found["differences"][0]["token"] == 7
    assert found["runs"][0]["error"] is None
    assert " was lost " in found["runs"][-1]["error"]
    assert "tokens per second" in said.out
    assert "policies: plain, serial\n" in said.out
    assert "drafters: ngram" in said.out


def test_what_differs_ends_with_status_1(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(got: Answer, count: int) -> None:
        got.tokens[-1] = 60 - got.tokens[-1] if got.figures.policy == "serial" else got.tokens[-1]

    (tmp_path / "lines.txt").write_text("w1 w2\nw3 w4\n")
    monkeypatch.setattr(runner, "answer", changed(spoil))
    out = tmp_path / "out"
    options = ("--local", "1", "--max-new-tokens", "8", "--policies", "plain,serial", "--no-plots")
    assert run(model, out, *options, "--raw", str(tmp_path / "lines.txt")) == 1
    assert "error: the texts differ in 2 of 4 answers" in capsys.readouterr().err
    assert results(out)["ended"] == "done"


def test_what_failed_ends_with_status_1(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(got: Answer, count: int) -> None:
        if count == 4:
            got.error = "stage 1 could not compute segment 0"

    (tmp_path / "lines.txt").write_text("w1 w2\nw3 w4\n")
    monkeypatch.setattr(runner, "answer", changed(spoil))
    out = tmp_path / "out"
    options = ("--local", "1", "--max-new-tokens", "8", "--policies", "plain,serial", "--no-plots")
    assert run(model, out, *options, "--raw", str(tmp_path / "lines.txt")) == 1
    said = capsys.readouterr().err
    assert "FAILED: lines, line 1, turn 1: plain (local 1), run 1: stage 1 could not" in said
    assert "error: 1 of 4 answers failed, see `failures` in " in said
    found = results(out)
    assert (found["ended"], found["agree"], len(found["failures"])) == ("done", True, 1)
    assert found["figures"]["local 1"]["lines"]["prompts"] == 1


def test_ctrl_c_keeps_what_was_measured(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(got: Answer, count: int) -> None:
        if count == 6:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(runner, "answer", changed(stop))
    out = tmp_path / "out"
    assert run(model, out, "--max-new-tokens", "8", "--policies", "plain,serial", str(data)) == 130
    found = results(out)
    assert found["ended"] == "interrupted"
    assert 3 <= len(found["runs"]) < 6
    assert found["figures"]["local 2"]["chat"]["prompts"] == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--temperature", "-1"), "--temperature is -1.0: it lies between 0 and 100"),
        (("--min-tokens", "65"), "--min-tokens 65 is more than --max-new-tokens 64"),
        (("--concurrency", "0"), "--concurrency takes a number of requests at once from 1"),
        (("--policies", ","), "--policies is empty"),
        (("--simulate", "2", "--profile", "no-such"), "there is no profile no-such"),
        (("--data", "no-such.jsonl"), "cannot be read"),
    ],
)
def test_what_cannot_be_had_is_said_before_anything_begins(
    options: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=why):
        app(["eval", *options])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "most"),
    [((), 8), (("--concurrency", "1,16"), 16), (("--concurrency", "16", "--max-requests", "4"), 4)],
)
def test_as_many_requests_run_as_are_asked_at_once_unless_somebody_says_otherwise(
    options: tuple[str, ...], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr(
        evaluate,
        "measure_all",
        lambda settings, evaluation, no_bar: found.extend(
            each.max_requests for each in settings.values()
        ),
    )
    app(
        ["eval", *options, "--out", str(tmp_path)], exit_on_error=False, result_action="return_none"
    )
    assert found == [most]
