"""A draft that begins with rows of another one guesses what one of its own would, and computes
nothing twice."""

import random
from pathlib import Path
from typing import Any

import heads
import pytest
import test_draft_model
import test_eagle
import torch

from gardener.decoding.tree import Tree
from gardener.draft.calibration import Calibration
from gardener.draft.drafter import Draft
from gardener.draft.incremental import Incremental, NoGuesses
from gardener.draft.ngram import NGram
from gardener.model.tensors import pack


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities as the network gives them."""
    monkeypatch.setattr(Calibration, "corrected", lambda self, chance, *where: chance)


def says(draft: Draft, tree: Tree) -> list[Any]:
    """About the root and two nodes below it."""
    child = tree.graft(tree.root, 7, 0.0)
    below = tree.graft(child.id, 2, 0.0)
    paths = [tree.lineage(node) for node in (tree.root, child.id, below.id)]
    return list(heads.said(draft.expand(paths)))


def same(one: list[Any], other: list[Any]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert [guess.token for guess in mine] == [guess.token for guess in theirs]
        due = [pytest.approx(guess.probability, abs=1e-5) for guess in theirs]
        assert [guess.probability for guess in mine] == due


# --- a small model -------------------------------------------------------------------------------


@pytest.fixture
def play(tmp_path: Path) -> test_draft_model.Play:
    return test_draft_model.Play("llama", tmp_path)


def begin_from(play: test_draft_model.Play, prompt: list[int], tokens: int) -> None:
    """Go on with another text, whose first tokens are those of the present one."""
    source = play.draft
    play.begin(prompt)
    play.draft = play.drafter.open(prompt, source=(source, tokens))
    play.computed.clear()


def test_a_small_model_computes_only_what_is_new(play: test_draft_model.Play) -> None:
    chain = play.graft(play.tree.root, 11, 12)
    play.check(play.tree.root, *chain)
    play.accept(11, 13)
    text = play.text
    begin_from(play, [*text, 20, 21, 22], len(text))
    play.check()
    assert play.computed == [20, 21, 22], "the source was brought up to date before"
    play.accept(5, 6)
    play.check(play.tree.root, *play.graft(play.tree.root, 1, 2))
    # From a part of that text, which itself began with another one.
    begin_from(play, [*play.text[:9], 30], 9)
    play.check(play.tree.root, *play.graft(play.tree.root, 3))
    assert play.computed == [30, 3]


def test_the_source_goes_on_as_it_was(play: test_draft_model.Play) -> None:
    chain = play.graft(play.tree.root, 11, 12)
    play.check(*chain)
    other = play.drafter.open([*play.text, 40], source=(play.draft, len(play.text)))
    says(other, Tree(len(play.text), 40))
    play.check(*play.graft(chain[-1], 13, 14))
    play.accept(11, 12)
    play.check()


def test_all_of_the_prompt_may_be_there(play: test_draft_model.Play) -> None:
    play.check()
    begin_from(play, play.text, len(play.text))
    play.check()
    assert play.computed == []


def test_without_rows_a_small_model_computes_all(play: test_draft_model.Play) -> None:
    for missing in (None, NoGuesses(), NGram().open(play.text)):
        play.computed.clear()
        play.draft = play.drafter.open(play.text, source=(missing, 5))
        play.check()
        assert play.computed == play.text


# --- heads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", test_eagle.KINDS)
@pytest.mark.parametrize("answered", [0, 1, 5])
def test_a_head_begins_with_what_another_text_has(kind: str, answered: int, tmp_path: Path) -> None:
    head, plain, matrix = test_eagle.build(kind, tmp_path)
    play = test_eagle.Play(head, plain, matrix, seed=1)
    play.prefill()
    play.grow()
    while len(play.text) < len(test_eagle.PROMPT) + answered:
        play.advance()
        play.grow()
    chance = random.Random(answered)
    tokens = len(play.text) - chance.randrange(3)
    prompt = [*play.text[:tokens], 20, 21, 22]
    # The ring computes rows from the last shared token on, so their features come.
    rows = len(prompt) - 1
    known = torch.stack(play.features[: tokens - 1])
    new = torch.randn(rows - len(known), known.shape[1], generator=play.source)
    alone = play.drafter.open(prompt)
    alone.settle((), [pack(part) for part in torch.cat([known, new]).chunk(len(head.taps), -1)])
    shared = play.drafter.open(prompt, source=(play.draft, tokens))
    assert shared.expand([Tree(rows, 22).lineage(rows)]) == [None], "features are to come"
    for piece in (new[:1], new[1:]):
        shared.settle((), [pack(part) for part in piece.chunk(len(head.taps), -1)])
    trees = [Tree(rows, 22), Tree(rows, 22)]
    same(says(shared, trees[0]), says(alone, trees[1]))
    # And on, with a miss.
    last = torch.randn(1, known.shape[1], generator=play.source)
    for draft, tree in ((shared, trees[0]), (alone, trees[1])):
        tree.advance(33)
        node = tree[tree.root]
        draft.settle([node], [pack(part) for part in last.chunk(len(head.taps), -1)])
    same(says(shared, trees[0]), says(alone, trees[1]))
    play.grow()  # the source is as it was


def test_a_head_that_lacks_features_for_good_guesses_nothing(tmp_path: Path) -> None:
    head, plain, matrix = test_eagle.build("eagle3", tmp_path)
    play = test_eagle.Play(head, plain, matrix, seed=1)
    play.draft.settle((), play.feel(3))
    prompt = [*play.text[:6], 20]
    for source in (None, NoGuesses(), play.draft):
        draft = play.drafter.open(prompt, source=(source, 6))
        assert draft.expand([Tree(6, 20).lineage(6)]) == [()]
        draft.settle((), play.feel(1))
    # Those of the first four tokens are there.
    draft = play.drafter.open(prompt, source=(play.draft, 4))
    assert not isinstance(draft, NoGuesses)


def test_ngram_reads_the_text_whatever_it_may_begin_with() -> None:
    drafter = NGram()
    source = drafter.open([1, 2, 3, 4])
    text = [1, 2, 3, 9, 1, 2]
    for draft in (drafter.open(text, source=(source, 3)), drafter.open(text, source=(None, 3))):
        assert [guess.token for guess in draft.expand([Tree(5, 2).lineage(5)])[0]] == [3]


def test_a_drafter_of_another_kind_is_no_source(play: test_draft_model.Play) -> None:
    drafter = Incremental(play.network, Calibration())
    draft = drafter.open(play.text, source=(NGram().open(play.text), 4))
    assert says(draft, Tree(len(play.text) - 1, play.text[-1]))
