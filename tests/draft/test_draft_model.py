"""A small model as a drafter guesses what the plain transformers model would, and nothing twice."""

import random
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import heads
import pytest
import tiny
import torch

from gardener.decoding.tree import Guess, Node, Tree
from gardener.draft import computed_rows, incremental
from gardener.draft.calibration import Calibration
from gardener.draft.computed_rows import ComputedRows
from gardener.draft.incremental import Incremental, IncrementalDraft
from gardener.draft.small_model import SmallModel
from gardener.errors import LocalError, RemoteError, UserError
from gardener.protocol import tensors

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
WIDTH = 6


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Passes so small are many times slower on several threads where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities as the model gives them."""
    monkeypatch.setattr(Calibration, "corrected", lambda self, chance, *where: chance)


class Play:
    """A text, a tree of guesses, a drafter, and the model that it should agree with."""

    def __init__(
        self, kind: str, folder: Path, prompt: Sequence[int] = PROMPT, **changes: Any
    ) -> None:
        self.model = tiny.make(kind, folder / "small", seed=3, **changes)
        tiny.make("llama", folder / "target")
        self.network = SmallModel(
            folder / "small", folder / "target", dtype="float32", device="cpu"
        )
        self.computed: list[int] = []  # tokens of the rows, in order
        self.passes: list[int] = []  # rows in each
        self.network.embed = self._counted(self.network.embed)  # type: ignore[method-assign]
        self.drafter = Incremental(self.network, Calibration(), width=WIDTH)
        self.begin(prompt)

    def begin(self, prompt: Sequence[int]) -> None:
        self.text = list(prompt)
        self.tree = Tree(len(prompt) - 1, prompt[-1])
        self.draft = self.drafter.open(prompt)

    def _counted(self, embed: Any) -> Any:
        def counted(tokens: torch.Tensor) -> torch.Tensor:
            self.computed += tokens.tolist()
            self.passes.append(len(tokens))
            out: torch.Tensor = embed(tokens)
            return out

        return counted

    def graft(self, parent: int, *tokens: int) -> list[int]:
        """A chain of guesses below a node; their ids."""
        ids = []
        for token in tokens:
            parent = self.tree.graft(parent, token, 0.0).id
            ids.append(parent)
        return ids

    def check(self, *nodes: int) -> None:
        """Ask about these nodes, and the plain model too."""
        paths = [self.tree.lineage(node) for node in nodes or (self.tree.root,)]
        told = heads.said(self.draft.expand(paths))
        assert len(told) == len(paths)
        for path, guesses in zip(paths, told, strict=True):
            self._compare(path, guesses)

    def _compare(self, path: Sequence[Node], guesses: Sequence[Guess]) -> None:
        text = [*self.text, *(node.token for node in path[1:])]
        best, tokens = torch.softmax(tiny.last_logits(self.model, text), -1).topk(WIDTH)
        assert [guess.token for guess in guesses] == tokens.tolist()
        given = torch.tensor([guess.probability for guess in guesses])
        assert torch.allclose(given, best, atol=1e-4)

    def accept(self, *tokens: int) -> None:
        """What the target wrote, guessed or not."""
        nodes = []
        for token in tokens:
            self.tree.advance(token)
            nodes.append(self.tree[self.tree.root])
        self.text += tokens
        self.draft.settle(nodes, ())


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play("llama", tmp_path)


# --- the same as the plain model -------------------------------------------------------------


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_guesses_equal_the_plain_model_whatever_is_accepted(kind: str, tmp_path: Path) -> None:
    play, chance = Play(kind, tmp_path), random.Random(7)
    for _ in range(5):
        for _ in range(2):
            for _ in range(3):
                parent = chance.choice(list(play.tree)).id
                play.graft(parent, *(chance.randrange(61) for _ in range(chance.randrange(1, 4))))
            play.check(*(chance.choice(list(play.tree)).id for _ in range(3)))
        root = play.tree.root
        children = [node.token for node in play.tree if node.parent == root]
        play.accept(chance.choice(children), *(chance.randrange(61) for _ in range(2)))


@pytest.mark.parametrize("kind", ["mistral", "qwen2-sliding", "gemma2", "gemma3", "phi4-mini"])
def test_a_chain_longer_than_a_window_is_what_the_model_writes(kind: str, tmp_path: Path) -> None:
    """Greedily, in the tree alone: it sees no further back than the model does."""
    play = Play(kind, tmp_path)
    text, node = list(PROMPT), play.tree.root
    for _ in range(12):
        (guesses,) = heads.said(play.draft.expand([play.tree.lineage(node)]))
        text.append(int(tiny.last_logits(play.model, text).argmax()))
        assert guesses[0].token == text[-1]
        (node,) = play.graft(node, text[-1])


def test_a_prompt_alone(play: Play) -> None:
    play.check()
    assert play.computed == PROMPT


def test_a_prompt_of_one_token(tmp_path: Path) -> None:
    play = Play("llama", tmp_path, [5])
    play.check()
    play.check(*play.graft(0, 7, 8))
    play.accept(7, 9)
    play.check()


def test_a_chain(play: Play) -> None:
    play.check(play.graft(play.tree.root, 10, 11, 12, 13)[-1])


def test_a_tree_in_which_tokens_repeat(play: Play) -> None:
    root = play.tree.root
    left, right = play.graft(root, 10, 11, 12), play.graft(root, 12, 11, 10)
    deep = play.graft(left[0], 10, 10)
    play.check(*left, *right, *deep, root)


def test_a_chain_that_is_accepted_in_part(play: Play) -> None:
    chain = play.graft(play.tree.root, 10, 11, 12, 13)
    play.check(*chain)
    play.accept(10, 11)
    play.check()
    play.check(*chain[2:])


def test_a_branch_that_dies_leaves_no_trace(play: Play) -> None:
    root = play.tree.root
    play.graft(root, 10, 11)
    dead = play.graft(root, 20, 21, 22)
    play.check(*dead)
    play.accept(10)
    below = play.graft(play.tree.root, 30, 31)
    play.check(*below)  # in the slots of the dead
    play.accept(11)
    play.check()


def test_tokens_that_nobody_guessed(play: Play) -> None:
    play.check(*play.graft(play.tree.root, 10, 11))
    play.accept(40, 41, 42)
    play.check()
    play.check(*play.graft(play.tree.root, 10))


def test_tokens_of_which_the_first_were_guessed(play: Play) -> None:
    play.check(*play.graft(play.tree.root, 10, 11))
    play.accept(10, 41, 42)
    play.check()


def test_tokens_that_come_before_the_first_question(play: Play) -> None:
    play.accept(40, 41)
    play.accept(42)
    play.check()
    assert play.computed == [*PROMPT, 40, 41, 42]


def test_a_long_prompt_is_computed_in_pieces(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental, "AT_ONCE", 3)
    play.check()
    assert play.passes == [3, 3, 2]
    children = [play.graft(play.tree.root, token)[0] for token in range(10, 17)]
    play.check(*children)
    assert play.passes == [3, 3, 2, 3, 3, 1]


def test_a_text_longer_than_the_model_was_made_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computed_rows, "SPARE", 4)
    play = Play("llama", tmp_path, max_position_embeddings=16)
    for token in range(20):
        play.accept(token)
        play.check()


def test_a_new_request_knows_nothing_of_the_one_before(play: Play) -> None:
    play.check(*play.graft(play.tree.root, 10, 11))
    play.accept(10)
    play.begin([9, 8, 7])
    play.check()
    play.check(*play.graft(play.tree.root, 10, 11))


def test_texts_that_are_drafted_in_turns_do_not_mix(play: Play) -> None:
    first = play.text, play.tree, play.draft
    play.begin([9, 8, 7])
    second = play.text, play.tree, play.draft
    for token in (10, 11, 12):
        for one in (first, second):
            play.text, play.tree, play.draft = one
            play.check(*play.graft(play.tree.root, token, token + 1))
            play.accept(token, token + 20)
            play.check()


def test_a_draft_that_is_dropped_is_freed(play: Play) -> None:
    play.check(*play.graft(play.tree.root, 10, 11))
    play.accept(10)
    assert isinstance(play.draft, IncrementalDraft)
    assert isinstance(play.draft._rows, ComputedRows)
    memory = weakref.ref(play.draft._rows._cache)
    play.draft = play.drafter.open(PROMPT)
    assert memory() is None


# --- nothing twice ---------------------------------------------------------------------------


def test_no_row_is_computed_twice(play: Play) -> None:
    chain = play.graft(play.tree.root, 10, 11, 12)
    play.check(chain[1])
    assert play.computed == [*PROMPT, 10, 11]
    play.check(*chain, play.tree.root)
    assert play.computed == [*PROMPT, 10, 11, 12]
    play.accept(10, 11)  # the rows are right as they are
    play.check()
    play.check(chain[-1])
    assert play.computed == [*PROMPT, 10, 11, 12]
    play.accept(50)
    play.check()
    assert play.computed == [*PROMPT, 10, 11, 12, 50]


def test_a_level_of_the_tree_is_one_pass(play: Play) -> None:
    root = play.tree.root
    chains = [play.graft(root, first, first + 1) for first in (10, 20, 30)]
    play.check(*(chain[-1] for chain in chains))
    assert play.passes == [len(PROMPT), 3, 3]


# --- what it says of itself ------------------------------------------------------------------


def test_it_needs_nothing_from_the_ring(play: Play) -> None:
    assert play.drafter.name == "model"
    assert play.drafter.taps == ()
    assert not play.drafter.instant
    with pytest.raises(RemoteError, match="features of 1 taps came, 0 were asked"):
        play.draft.settle((), [tensors.Tensor("float32", (0, 1), b"")])


def test_a_question_about_another_root_is_refused(play: Play) -> None:
    play.accept(10)
    with pytest.raises(LocalError, match=r"asked about root 7, but 8 is the root"):
        play.draft.expand([[Node(7, 6, PROMPT[-1], 0.0)]])


def test_no_more_guesses_than_asked_for(play: Play) -> None:
    for width in (1, 4):
        drafter = Incremental(play.network, Calibration(), width=width)
        draft = drafter.open(PROMPT)
        (told,) = heads.said(draft.expand([play.tree.lineage(play.tree.root)]))
        assert len(told) == width
        assert [guess.probability for guess in told] == sorted(
            (guess.probability for guess in told), reverse=True
        )


# --- what is refused -------------------------------------------------------------------------


def _load(folder: Path, kind: str, **changes: Any) -> SmallModel:
    tiny.make(kind, folder / "small", **changes)
    tiny.make("llama", folder / "target")
    return SmallModel(folder / "small", folder / "target", dtype="float32", device="cpu")


@pytest.mark.parametrize("vocab", [60, 62])
def test_another_vocabulary_is_refused(vocab: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"vocabulary of {vocab}, the model one of 61"):
        _load(tmp_path, "llama", vocab_size=vocab)


def test_other_sizes_than_the_targets_are_no_matter(tmp_path: Path) -> None:
    network = _load(tmp_path, "llama", hidden_size=16, num_hidden_layers=2, intermediate_size=24)
    assert network.layers == 2
    assert network.shape.width == 16
