"""The hours of a training run bound it, and what an interrupted one has written is not lost."""

import json
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from processes import Process

from gardener.cli.config import SECTIONS
from gardener.cli.main import app
from gardener.cli.view.training import Lines
from gardener.draft.train import chunks, report
from gardener.draft.train.chunks import Text
from gardener.draft.train.corpus import BEGUN, HELD_OUT, SECONDS
from gardener.draft.train.dialogue import ANSWER, Dialogue, Play, Script, Style, written
from gardener.draft.train.evaluate import observe
from gardener.draft.train.hours import CLOSING, Hours, Stopped
from gardener.draft.train.plan import Plan
from gardener.draft.train.run import STATE, TrainingRun
from gardener.draft.train.trainer import Progress, read_state
from gardener.errors import UserError
from gardener.model.batch_decoder import BatchDecoder
from gardener.model.loader import load_whole

SCRIPT = Script(opening=(50, 51), answering=(52, 53), asking=(52, 54, 51), ends=frozenset({52, 0}))
PLAN = Plan(
    hours=1.0, vocab=32, inner=24, chunk=100_000, lanes=4, room=64, batch=256, steps=5, rounds=1
)
TEMPLATE = (
    "{% for m in messages %}{{ ('w1 ' if m['role'] == 'user' else 'w2 ') + m['content'] + ' w3 ' }}"
    "{% endfor %}{% if add_generation_prompt %}w2 {% endif %}"
)


class Clock:
    """Each look at it takes some seconds."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.at, self.tick = 0.0, seconds

    def __call__(self) -> float:
        self.at += self.tick
        return self.at


class After:
    """The user has had enough when asked for the `count`th time."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self) -> bool:
        self.count -= 1
        return self.count < 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose words are w0 to w60."""
    folder = tmp_path_factory.mktemp("model")
    tiny.make("smollm", folder)
    tiny.name_words(folder, TEMPLATE)
    return folder


def _run(
    out: Path, model: Path, hours: Hours, plan: Plan = PLAN, dtype: str = "float32"
) -> TrainingRun:
    tell: Callable[..., None] = lambda *what: None  # noqa: E731
    return TrainingRun(out, model, plan, SCRIPT, tell, dtype=dtype, device="cpu", hours=hours)


def _texts(path: Path) -> set[tuple[int, ...]]:
    return {tuple(text.tokens.tolist()) for text in chunks.read(path, {})}


def test_a_clock_counts_all_sessions_and_keeps_time_for_the_end() -> None:
    clock = Clock()
    hours = Hours(0.1, now=clock)
    hours.before = 100.0
    clock.at = 57.5
    assert hours.seconds == 157.5
    assert hours.left == 202.5
    assert hours.closing == 45.0
    assert hours.share == pytest.approx(0.5)
    assert Hours(10.0).closing == CLOSING
    more = hours.at_most(10.0)
    assert more()
    clock.at += 10.0
    assert not more()
    assert hours.under_way
    with pytest.raises(Stopped):
        Hours(1.0, lambda: True).check()


def test_a_short_run_writes_few_dialogues_at_a_time_and_takes_small_steps() -> None:
    plan = Plan(hours=0.02)
    assert (plan.lanes_now, plan.batch_now) == (16, 256)
    assert (Plan(hours=2.0).lanes_now, Plan(hours=2.0).batch_now) == (256, 2048)
    assert Plan(hours=0.02, lanes=4).lanes_now == 4


def test_dialogues_that_are_cut_have_what_was_fed_and_no_more(folder: Path) -> None:
    whole = load_whole(folder, dtype="float32", device="cpu")
    lanes = BatchDecoder(whole, 3, 64, (4,), 1)
    fed: list[list[int]] = [[], [], []]
    step = lanes.step

    def spy(tokens: list[int], *rest: Any) -> list[int]:
        for lane, token in enumerate(tokens):
            fed[lane].append(token)
        return step(tokens, *rest)

    lanes.step = spy  # type: ignore[method-assign, assignment]

    def pieces() -> Any:
        while True:
            made = Dialogue()
            yield made, written(SCRIPT, Style(rounds=1), 64, random.Random(1), made=made)

    play = Play(lanes, SCRIPT.opening, pieces())
    for _ in range(9):
        assert not play.step()
    assert play.under_way == 3 * 9
    made = play.cut()
    for dialogue, tokens in zip(made, fed, strict=True):
        assert dialogue.tokens == tokens
        assert len(dialogue.roles) == 9
        assert dialogue.kept is not None
        assert all(len(kept) == 9 for kept in dialogue.kept)


def test_the_hours_end_writing_and_training(folder: Path, tmp_path: Path) -> None:
    """Though a chunk is far larger than what there is time for."""
    hours = Hours(1.0, now=Clock(10.0))
    run = _run(tmp_path, folder, hours)
    run.work()
    assert run.progress.tokens > 0
    assert hours.total - hours.closing <= hours.seconds < hours.total
    written = sum(len(text) for path in run.corpus.chunks() for text in _texts(path))
    assert 0 < written < PLAN.chunk / 2
    assert read_state(tmp_path / STATE)["progress"]["tokens"] == run.progress.tokens
    report.finish(run, "tiny", "train-draft")
    assert hours.seconds < hours.total + 100
    assert (tmp_path / "report.md").exists()


def test_held_out_dialogues_are_as_many_as_a_third_and_as_long_as_others(
    folder: Path, tmp_path: Path
) -> None:
    run = _run(tmp_path, folder, Hours(1.0), replace(PLAN, chunk=2500))
    held_out, chunk = run.held_out(), run._chunk(0)
    size = sum(len(text.tokens) for text in held_out)
    assert 0.25 < size / (size + sum(len(text.tokens) for text in chunk)) < 0.42
    means = [sum(len(t.tokens) for t in each) / len(each) for each in (held_out, chunk)]
    assert 0.7 < means[0] / means[1] < 1.4
    assert all((text.roles == ANSWER).any() for text in [*held_out, *chunk])


def test_the_last_look_ends_with_the_time(folder: Path, tmp_path: Path) -> None:
    clock = Clock()
    run = _run(tmp_path, folder, Hours(1.0, now=clock), replace(PLAN, chunk=3000))
    run.held_out()
    whole = run.judge()
    assert whole.share == 1
    clock.tick = CLOSING
    assert 0 < run.judge().share < 1
    seen = observe(run.trainer.head, run.trainer.target, run.held_out(), 256, lambda: False)
    assert 0 < len(seen.depth) < len(whole.depth)  # one batch, whatever the time
    with pytest.raises(Stopped):
        _run(tmp_path, folder, Hours(1.0, After(1)), replace(PLAN, chunk=3000)).judge()


def test_hours_that_are_too_short_are_said_to_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^1 hours are too short .* 0 tokens .* --hours 4 or more"):
        _run(tmp_path / "no answer", folder, Hours(1.0, now=Clock(300.0)))
    clock = Clock()
    run = _run(tmp_path / "no step", folder, Hours(1.0, now=clock), replace(PLAN, chunk=300))
    clock.at = 3500.0
    with pytest.raises(UserError, match=r"^1 hours are too short .* the first step .*hours 2"):
        run.work()
    assert not (tmp_path / "no step" / "model.safetensors").exists()


def test_what_was_written_before_an_interruption_is_used(folder: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, chunk=2000)
    begun = tmp_path / "dialogues" / BEGUN
    with pytest.raises(Stopped):
        _run(tmp_path, folder, Hours(1.0, After(60)), plan)
    first = _texts(begun)
    assert first
    with pytest.raises(Stopped):
        _run(tmp_path, folder, Hours(1.0, After(60)), plan)
    both = _texts(begun)
    assert first < both
    _run(tmp_path, folder, Hours(1.0), plan)
    names = [HELD_OUT, "chunk-00000.safetensors"]
    parts = [_texts(tmp_path / "dialogues" / name) for name in names]
    assert both < parts[0] | parts[1]
    assert len(parts[0]) + len(parts[1]) == len(parts[0] | parts[1])  # nothing twice
    assert not begun.exists()


def test_seconds_of_an_interrupted_session_count(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        _run(tmp_path, folder, Hours(1.0, After(60), Clock(1.0)))
    seconds = float(chunks.facts_of(tmp_path / "dialogues" / BEGUN)[SECONDS])
    assert seconds > 60
    hours = Hours(1.0, After(0), Clock())
    with pytest.raises(Stopped):
        _run(tmp_path, folder, hours)
    assert hours.before == seconds


def test_steps_before_an_interruption_are_kept(folder: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, chunk=3000)
    run = _run(tmp_path, folder, Hours(1.0), plan)
    run.hours._stopped = After(3)
    with pytest.raises(Stopped):
        run.work()
    assert run.progress.tokens > 0
    again = _run(tmp_path, folder, Hours(1.0), plan)
    assert again.progress.tokens == run.progress.tokens
    assert again.hours.before == run.progress.seconds
    for name, weight in again.trainer.head.state_dict().items():
        assert torch.equal(weight, run.trainer.head.state_dict()[name])


def test_no_chunk_is_begun_for_which_there_is_no_time(folder: Path, tmp_path: Path) -> None:
    clock = Clock()
    run = _run(tmp_path, folder, Hours(1.0, now=clock), replace(PLAN, chunk=300))
    run._one_chunk(0)
    run.corpus._pace = 1.0  # tokens a second: a chunk takes 300 s
    assert run.corpus.worthwhile(1)
    clock.at = 3000.0
    assert run.corpus.worthwhile(0)
    assert not run.corpus.worthwhile(1)
    trained = run.progress.tokens
    run._one_round()
    assert run.progress.tokens > trained
    assert len(run.corpus.chunks()) == 1


def test_a_session_may_compute_in_another_dtype_than_the_one_before(
    folder: Path, tmp_path: Path
) -> None:
    plan = replace(PLAN, chunk=300)
    for index, dtype in enumerate(("bfloat16", "float32", "bfloat16")):
        run = _run(tmp_path, folder, Hours(1.0), plan, dtype)
        run._one_chunk(index)
        run._train([], 300, "old chunks")
        run.judge()
        run.save()
    assert run.progress.chunks == 3


def test_texts_become_dialogues_again() -> None:
    text = Text(
        torch.tensor([1, 2]).int(), torch.tensor([0, 2]).byte(), torch.rand(2, 4),
        torch.ones(2, 3).int(), torch.rand(2, 3).half(),
    )  # fmt: skip
    (made,) = chunks.dialogues([text])
    assert (made.tokens, made.roles, made.answers) == ([1, 2], [0, 2], 1)
    assert made.kept is not None
    assert torch.equal(made.kept.features, text.features)
    assert torch.equal(made.kept.odds, text.odds)


def test_a_line_now_and_then_where_there_is_no_terminal() -> None:
    said: list[str] = []
    clock = Clock()
    progress = Progress()
    with Lines(5000.0, said.append, clock) as teller:
        for second in range(3000):
            clock.at = second
            what = f"writing chunk 0: {second} tokens" if second < 2900 else f"training on {second}"
            teller.tell(second, progress, what)
    assert said[:3] == [
        "83:20 left, writing chunk 0: 0 tokens",
        "83:15 left, writing chunk 0: 5 tokens",
        "83:10 left, writing chunk 0: 10 tokens",
    ]
    assert said[-2:] == ["35:00 left, training on 2900", "34:00 left, training on 2960"]
    assert 60 < len(said) < 120  # seldom, later on


def test_every_command_with_settings_has_a_table() -> None:
    settable = {
        name
        for name in app
        if not name.startswith("-") and app[name].default_command is not None
        for argument in app[name].assemble_argument_collection()
        if "--config" in argument.names
    }
    assert settable | {"node"} == set(SECTIONS)


def test_a_folder_that_cannot_be_written_is_noticed_before_any_work(tmp_path: Path) -> None:
    """And before anything else that is wrong; the folder may be named in a file."""
    (tmp_path / "file").write_text("")
    (tmp_path / "g.toml").write_text(f'[train-draft]\nout = "{tmp_path / "file" / "head"}"\n')
    with pytest.raises(UserError, match="file/head cannot be made or written"):
        app(["train-draft", "--model", "nothing", "--config", str(tmp_path / "g.toml")])


def test_the_command_is_interrupted_and_goes_on(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text(json.dumps({"turns": ["w5"]}))  # answers begin at once
    command = (
        *("train-draft", "--model", str(folder), "--out", str(tmp_path / "head")),
        *("--data", str(tmp_path / "asked.jsonl"), "--lanes", "16", "--room", "64"),
        *("--vocab", "32", "--dtype", "float32", "--threads", "1"),
    )
    found = 0
    for number, heard in (
        (signal.SIGINT, r"(?s)writing chunk 0: .*(writing|training)"),
        (signal.SIGTERM, "(writing|training)"),
    ):
        with Process(*command) as process:
            process.heard(heard)
            process.signal(number)
            assert process.status() == 128 + number
        assert process.err.endswith("the same command goes on\ninterrupted\n")
        assert "Traceback" not in process.err
        files = (tmp_path / "head" / "dialogues").glob("*.safetensors")
        before, found = found, sum(len(chunks.read(file, {})) for file in files)
        assert found >= max(before, 1)
