"""Chat templates and system messages on real command lines, in simulated rings of a tiny model."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import words

from gardener.cli import program
from gardener.cli.main import app
from gardener.holder.prompter import Prompter

FIGURES = ("--simulate", "1", "--draft", "ngram", "--max-new-tokens", "6")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that brings no template, by whose name one is sure."""
    folder = tmp_path_factory.mktemp("models") / "vicuna-7b-v1.3"
    tiny.make("llama", folder, vocab_size=words.ROWS, max_position_embeddings=512)
    words.name_bytes(folder, ["<|im_start|>", "<|im_end|>"])
    return folder


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This process is not to be ended; recordings go to a folder of this test."""
    monkeypatch.setattr(program, "CLOSING", 600.0)
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(monkeypatch: pytest.MonkeyPatch, model: Path, *words: str) -> int:
    """The command, in this process; returns its status."""
    command, *options = words
    monkeypatch.setattr(sys, "argv", ["gardener", command, "--model", str(model), *options])
    try:
        program.program(app)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def asked(folder: Path, text: str, **options: Any) -> int:
    return len(Prompter(folder, **options).encode(text))


def test_a_template_is_chosen_told_and_can_be_changed(
    plain: Path, settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("generate", "Why?", *FIGURES, "--json", "--compare", "plain")
    told = "this model brings no chat template: vicuna is taken, by its name vicuna-7b-v1.3"
    found = []
    for more in ((), ("--template", "chatml"), ("--system", "Be brief."), ("--system", "")):
        assert run(monkeypatch, plain, *options, *more) == 0
        said = capsys.readouterr()
        found.append(json.loads(said.out))
        assert said.err.count(told) == ("--template" not in more)
        assert "--raw" not in said.err
    expected = [
        asked(plain, "Why?"),
        asked(plain, "Why?", template="chatml"),
        asked(plain, "Why?", system="Be brief."),
        asked(plain, "Why?", system=""),
    ]
    assert [each["prompt_tokens"] for each in found] == expected
    # Each prompt has a recording of its own.
    assert len(list(settings.glob("recordings/*/*.safetensors"))) == 4


def test_without_a_sure_name_nothing_is_guessed(
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "copy").mkdir()
    for file in plain.iterdir():
        (tmp_path / "copy" / file.name).symlink_to(file)
    for command in (("generate", "Why?", *FIGURES), ("verify", *FIGURES, "--count", "1")):
        assert run(monkeypatch, tmp_path / "copy", *command) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: this model brings no chat template")
        assert "--template (alpaca, chatml, " in error
        assert "--raw" in error
    out = ("--out", str(tmp_path / "out"))
    assert run(monkeypatch, tmp_path / "copy", "eval", *FIGURES, *out, "--prompts", "1") == 1
    assert "no prompt can be asked; skipped" in capsys.readouterr().err


def test_raw_says_what_comes_to_nothing_and_a_doubled_bos(
    plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GARDENER_SYSTEM", "Be brief.")
    raw = ("generate", "<s>Why?", *FIGURES, "--json", "--raw", "--compare", "plain,serial")
    assert run(monkeypatch, plain, *raw) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["prompt_tokens"] == 2 + len("Why?")
    assert said.err.count("--raw takes the text as it is: --system has no effect\n") == 1
    assert said.err.count("the text begins with <s>, and the tokenizer puts one before it") == 1
    assert "template" not in said.err


def test_verify_holds_raw_texts_and_chats_to_transformers(
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "texts.txt").write_text("Why?\nOnce upon\n")
    options = ("verify", *FIGURES, "--prompts", str(tmp_path / "texts.txt"), "--json")
    for more in (("--raw",), ("--template", "chatml", "--system", "x")):
        assert run(monkeypatch, plain, *options, "--policies", "plain,gardener", *more) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["reference"], found["same"], found["prompts"]) == ("transformers", 4, 2)


def test_an_evaluation_keeps_which_template_was_used(
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "texts.txt").write_text("Why?\n")
    options = ("eval", str(tmp_path / "texts.txt"), *FIGURES, "--no-plots", "--policies", "plain")
    kept = []
    for number, more in enumerate(((), ("--template", "alpaca", "--system", "x"), ("--raw",))):
        out = tmp_path / str(number)
        assert run(monkeypatch, plain, *options, "--out", str(out), *more) == 0
        found = json.loads((out / "results.json").read_text())
        kept.append((found["template"], found["settings"]["template"], found["settings"]["system"]))
    capsys.readouterr()
    assert kept == [
        ("vicuna (chosen by the name vicuna-7b-v1.3)", None, None),
        ("alpaca", "alpaca", "x"),
        (None, None, None),
    ]


@pytest.mark.parametrize("command", ["generate", "verify", "eval", "train-draft"])
def test_a_template_that_does_not_exist_is_said_before_anything_begins(
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    options = {
        "generate": ("Why?", "--local", "1"),
        "train-draft": ("--out", str(tmp_path / "head")),
    }.get(command, ("--local", "1"))
    assert run(monkeypatch, plain, command, *options, "--template", "vicunja") == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "error: there is no chat template 'vicunja': name one of alpaca, chatml, "
    )
    assert not (tmp_path / "head").exists()


def test_a_template_that_takes_no_system_message_says_so(
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}")
    options = (*FIGURES, "--template", str(file), "--system", "Be brief.")
    assert run(monkeypatch, plain, "generate", "Why?", *options) == 1
    assert (
        f"error: the chat template {file} takes no system message (it leaves it out without a word)"
        in capsys.readouterr().err
    )
