"""Dialogues whose template writes text around the turns, and texts without any template."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import words

from gardener.cli.train_draft import _Writing
from gardener.draft.train import chunks
from gardener.draft.train.corpus import Corpus
from gardener.draft.train.dialogue import ANSWER, TEMPLATE, USER, Dialogue, Script, Style, written
from gardener.draft.train.plan import Plan
from gardener.errors import UserError
from gardener.holder.prompter import Prompter
from gardener.model.loader import load_whole

TEXTUAL = Script(opening=(50, 51), answering=(52, 53), asking=(0, 51), ends=frozenset({0}))
"""Its marks are ordinary tokens, as those of Vicuna: 52 alone ends nothing."""

RAW = Script(opening=(50,), answering=(), asking=(), ends=frozenset({0}), openings=((7, 8),))
CALM = Style(rounds=1, asked=6, answered=4)


def perform(
    script: Script,
    drawn: Sequence[int],
    style: Style = CALM,
    asked: Sequence[Sequence[int]] = (),
    room: int = 40,
    seed: int = 1,
) -> Dialogue:
    """What comes of a text when these tokens are drawn, one after each token of it."""
    lines = written(script, style, room, random.Random(seed), asked)
    next(lines)
    try:
        for token in drawn:
            lines.send(token)
    except StopIteration as end:
        made: Dialogue = end.value
        return made
    raise AssertionError("it wants more")


def test_a_user_turn_ends_where_the_model_writes_what_comes_before_an_answer() -> None:
    made = perform(TEXTUAL, [1, 52, 2, 52, 53, 4, 52, 0])
    assert made.tokens == [50, 51, 1, 52, 2, 52, 53, 4, 52]
    assert made.roles == [*[TEMPLATE] * 2, *[USER] * 3, *[TEMPLATE] * 2, *[ANSWER] * 2]


def test_a_user_turn_that_is_too_long_gets_it_written_behind_it() -> None:
    made = perform(TEXTUAL, [1, 2, 3, 4, 5, 6, 60, 60, 7, 0])
    assert made.tokens == [50, 51, 1, 2, 3, 4, 5, 6, 52, 53, 7]
    assert made.roles == [*[TEMPLATE] * 2, *[USER] * 6, *[TEMPLATE] * 2, ANSWER]


def test_without_a_template_a_text_goes_on_from_given_words() -> None:
    style = replace(CALM, asked=2)
    made = perform(RAW, [60, 60, *range(10, 30)], style, room=12)
    assert len(made.tokens) == 12
    assert made.tokens[:3] == [50, 7, 8]
    assert made.tokens[3:] == list(range(10, 19))  # drawn after the words, and nothing in between
    asked = made.roles.count(USER) - 2
    assert asked in {1, 2}
    assert made.roles == [TEMPLATE, *[USER] * (2 + asked), *[ANSWER] * (9 - asked)]


def test_without_a_template_and_bos_a_text_begins_with_the_words() -> None:
    made = perform(replace(RAW, opening=()), [60, 10, 11, 12, 13, 14, 15, 16, 0])
    assert made.tokens == [7, 8, 10, 11, 12, 13, 14, 15, 16]


def test_given_texts_are_gone_on_from_in_turn() -> None:
    made = perform(RAW, [60, 10, 11, 12, 13, 60, 14, 0], asked=[[1], [2]])
    assert made.tokens == [50, 1, 10, 11, 12, 13, 2, 14]
    assert made.roles == [TEMPLATE, USER, *[ANSWER] * 4, USER, ANSWER]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder, vocab_size=words.ROWS)
    words.name_bytes(folder, ["<|im_start|>", "<|im_end|>"])
    return folder


def test_what_a_dialogue_is_made_of(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Hi\n")
    vicuna = Prompter(folder, template="vicuna", system="x")
    script = _Writing(vicuna, raw=False).script(tmp_path / "mine.txt")
    assert vicuna.backend.decode(script.opening) == "x USER:"
    assert script.openings == (tuple(vicuna.tokens(" Hi")),)  # with the blank before it
    assert script.ends == vicuna.eos
    chatml = Prompter(folder, template="chatml")
    script = _Writing(chatml, raw=False).script(tmp_path / "mine.txt")
    end = chatml.backend.token_to_id("<|im_end|>")
    assert (script.answering[0], script.ends) == (end, chatml.eos | {end})
    raw = _Writing(chatml, raw=True).script(tmp_path / "mine.txt")
    bos = chatml.backend.token_to_id("<s>")
    assert (raw.opening, raw.answering, raw.asking) == ((bos,), (), ())
    assert raw.openings == (tuple(chatml.tokens("Hi")),)
    assert _Writing(chatml, raw=True).tokens("Hi") == chatml.tokens("Hi")


def test_a_raw_text_needs_words_to_begin_with_and_a_dialogue_a_template(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "none.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match=r"none.txt has no words, and --raw begins with some"):
        _Writing(Prompter(folder), raw=True).script(tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"brings no chat template.*--template"):
        _Writing(Prompter(folder), raw=False)


def test_texts_are_written_by_the_model_and_not_mixed_with_others(
    folder: Path, tmp_path: Path
) -> None:
    whole = load_whole(folder, dtype="float32", device="cpu")
    plan = Plan(room=64, lanes=4, chunk=400)
    prompter = Prompter(folder)
    raw = _Writing(prompter, raw=True).script(None)
    corpus = Corpus(tmp_path, plan, whole, raw, "mark", (4,))
    texts = corpus.chunk(0, lambda count: None)
    begins = {(prompter.start()[0], *each) for each in raw.openings}
    for text in texts:
        roles = text.roles.tolist()
        assert roles == sorted(roles)  # template, user, answer, and nothing comes back
        assert any(tuple(text.tokens.tolist()[: len(each)]) == each for each in begins)
    assert sum(text.roles.tolist().count(ANSWER) for text in texts) > 100
    chat = _Writing(Prompter(folder, template="vicuna"), raw=False).script(None)
    other = Corpus(tmp_path, plan, whole, chat, "mark", (4,))
    with pytest.raises(UserError, match=r"was made with template .*: use another --out"):
        other.chunk(0, lambda count: None)
    (path,) = corpus.chunks()
    assert chunks.facts_of(path)["model"] == "mark"
