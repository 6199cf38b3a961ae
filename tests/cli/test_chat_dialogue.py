"""Dialogues, their files, the settings and the names of commands: no terminal, no ring."""

import json
from pathlib import Path

import pytest

from gardener.cli.chat import commands, stats
from gardener.cli.chat.dialogue import Dialogue, pairs
from gardener.cli.chat.knobs import Knobs
from gardener.cli.chat.saved import load, save
from gardener.cli.chat.server import base_of, sent
from gardener.cli.chat.source import TurnFigures
from gardener.errors import UserError


def dialogue() -> Dialogue:
    made = Dialogue("Be brief.")
    made.ask("One?")
    made.answer("1")
    made.ask("Two?")
    made.answer("tw", stopped=True)
    return made


def test_turns_are_taken_back_one_by_one() -> None:
    made = dialogue()
    assert made.take_back_answer()
    assert made.is_waiting
    assert pairs(made.turns) == ("Two?", [("One?", "1")])
    assert made.take_back_answer()  # it waits already
    made.take_back_question()
    assert [each.content for each in made.turns] == ["One?", "1"]
    assert not made.ask("Three?")
    assert made.ask("Four?"), "it takes the place of one without an answer"
    assert made.question == "Four?"
    made.clear()
    assert made.question is None
    assert made.system == "Be brief."
    assert not made.take_back_answer()
    with pytest.raises(ValueError, match="no question"):
        made.answer("?")


def test_a_saved_dialogue_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    save(dialogue(), path)
    stored = json.loads(path.read_text())
    assert stored[0] == {"role": "system", "content": "Be brief."}
    assert [each["role"] for each in stored[1:]] == ["user", "assistant"] * 2
    found = load(path)
    assert found.system == "Be brief."
    assert [each.content for each in found.turns] == ["One?", "1", "Two?", "tw"]
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_written_over_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        save(dialogue(), path)
    assert path.read_text() == "mine"
    save(dialogue(), path, replace=True)
    assert load(path).question == "Two?"
    with pytest.raises(UserError, match=r"none/x\.json cannot be written \(no such file"):
        save(dialogue(), tmp_path / "none" / "x.json")


def test_a_request_and_text_parts_are_a_dialogue_too(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    parts = [{"type": "text", "text": "One"}, {"type": "text", "text": "?"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    path.write_text(json.dumps({"model": "x", "messages": messages}))
    found = load(path)
    assert (found.system, found.question, found.is_waiting) == ("Be brief.", "One?", True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no dialogue"),
        ("[]", "holds no message"),
        ('[{"role": "tool", "content": "x"}]', "Invalid enum value 'tool'"),
        ('[{"role": "user", "content": 3}]', "got `int`"),
        ('[{"role": "assistant", "content": "x"}]', "message 1 is of the assistant"),
        ('[{"role": "user", "content": "x"}, {"role": "user", "content": "x"}]', "message 2"),
        ('[{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]', "only 1 may"),
        ('[{"role": "user", "content": "\\ud800"}]', "no dialogue|not UTF-8"),
    ],
)
def test_a_file_that_is_no_dialogue_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UserError, match=told) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_settings_are_set_and_led_back() -> None:
    knobs = Knobs(policy="gardener").set("temperature", "0.7").set("top-p", "0.9")
    assert (knobs["temperature"], knobs["top_p"]) == (0.7, 0.9)
    assert knobs.set("max_new_tokens", "5").max_tokens == 5
    assert knobs.set("policy", "plain").changed() == ["temperature 0.7", "top_p 0.9"]
    assert knobs.set("logit_bias", "42=-5,7=1")["logit_bias"] == ((42, -5.0), (7, 1.0))
    back = knobs.set("temperature", "default")
    assert (back["temperature"], back["top_p"], set(back.given)) == (0.0, 0.9, {"top_p"})
    assert any(line.split() == ["temperature", "0.7"] for line in knobs.lines())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("temperatur", "1", "did you mean temperature"),
        ("colour", "1", "there are temperature"),
        ("temperature", "hot", "temperature is 'hot': it is a number"),
        ("temperature", "101", "lies between 0 and 100"),
        ("temperature", "nan", "lies between 0 and 100"),
        ("top_k", "1.5", "a whole number"),
        ("max_tokens", "0", "lies between 1 and"),
        ("min_tokens", "2000", "more than max_tokens 1024"),
        ("policy", "fast", "there is no policy 'fast'"),
        ("ignore_eos", "maybe", "on or off"),
        ("logit_bias", "x", "TOKEN=BIAS"),
    ],
)
def test_a_bad_setting_is_refused_with_the_reason(name: str, value: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        Knobs(policy="gardener").set(name, value)


def test_a_server_is_told_what_was_set_alone() -> None:
    knobs = Knobs(max_tokens=9)
    assert sent(knobs) == {"max_tokens": 9}
    knobs = knobs.set("temperature", "0").set("logit_bias", "42=-5")
    assert sent(knobs) == {"max_tokens": 9, "temperature": 0.0, "logit_bias": {"42": -5.0}}
    with pytest.raises(UserError, match="the server's affair"):
        knobs.set("policy", "plain")


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("https://example.org/v1/", "https://example.org/v1"),
        ("http://[::1]:80/llm", "http://[::1]:80/llm/v1"),
        ("localhost:8000", None),
        ("ftp://localhost", None),
        ("http://", None),
        ("http://x:99999", None),
        ("http://x/?q=1", None),
    ],
)
def test_an_address_is_completed_or_refused(url: str, base: str | None) -> None:
    if base is not None:
        assert base_of(url) == base
        return
    with pytest.raises(UserError, match="is no address of a server"):
        base_of(url)


def test_commands_are_told_from_messages() -> None:
    assert commands.parse("hello /set") is None
    assert commands.parse("//etc is a folder") is None
    assert commands.message("//etc is a folder") == "/etc is a folder"
    assert commands.parse("/set  temperature 0.7 ") == ("set", "temperature 0.7")
    assert commands.parse("/system a\nb") == ("system", "a\nb")
    assert commands.parse("/clear") == ("new", "")
    for text, told in (("/sats", "did you mean /stats"), ("/etc/passwd", "/help"), ("/", "/help")):
        with pytest.raises(UserError, match=told):
            commands.parse(text)


def test_figures_are_summed_where_they_are_known() -> None:
    first = TurnFigures(40, 0, 11, 0.5, 1.0, 8, 3, 20, 5, "gardener", "stop")
    second = TurnFigures(prompt=60, tokens=21, first=0.1, decode=1.0, finish="length")
    told = "\n".join(stats.lines([first, second], "81/512 tokens"))
    assert "21 tokens, 20.0 tokens/s, first text after 0.10 s, ended: length" in told
    assert "2 answers, 32 tokens, 15.0 tokens/s" in told
    assert "8 accepted, 20 drafted, 3 missed, 2.20 tokens a segment" in told
    assert "81/512 tokens" in told
    assert stats.lines([], "") == ["nothing was answered yet"]
