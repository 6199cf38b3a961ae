"""One-pass heads (DFlash, DSpark) draft as their reference does, whatever has been settled."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import heads
import one_pass
import pytest
import speculators
import tiny
import torch
from torch import Tensor

from gardener.decoding.tree import Node, Opinion, Tree
from gardener.draft import block_drafter
from gardener.draft.block import BlockNetwork
from gardener.draft.block_drafter import BlockDraft, BlockDrafter
from gardener.draft.block_files import load_block
from gardener.draft.calibration import Calibration
from gardener.draft.drafter import Draft
from gardener.draft.factory import DraftSettings, drafters
from gardener.draft.incremental import NoGuesses
from gardener.errors import LocalError, RemoteError, UserError
from gardener.model.kv_cache import KVCache
from gardener.model.tensors import pack

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
LAYERS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("qwen3", folder, num_hidden_layers=LAYERS, tie_word_embeddings=False)
    return folder


@pytest.fixture(autouse=True)
def _no_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities as the network gives them."""
    monkeypatch.setattr(Calibration, "corrected", lambda self, chance, *where: chance)


KINDS: dict[str, tuple[Callable[[], dict[str, Any]], bool]] = {
    "dflash": (one_pass.dflash, False),
    "dflash-own-ends": (one_pass.dflash, True),
    "dflash-biased": (lambda: one_pass.dflash(attention_bias=True), False),
    "dspark": (one_pass.dspark, False),
    "dspark-own-ends": (one_pass.dspark, True),
    "dspark-of-specforge": (one_pass.specforge, False),
    "dspark-without-markov": (
        lambda: one_pass.dspark(markov_rank=0, enable_confidence_head=False),
        False,
    ),
}


def load(folder: Path, model: Path, config: dict[str, Any], own: bool = False) -> BlockNetwork:
    heads.write(folder, config, one_pass.tensors(config, own), pickled=False)
    return load_block(folder, model, dtype="float32", device="cpu")


class Play:
    """A text with random features, and a tree of guesses at what follows it."""

    def __init__(self, folder: Path, model: Path, kind: str = "dspark", seed: int = 1) -> None:
        make, own = KINDS[kind]
        config = make()
        self.network = load(folder, model, config, own)
        whole = tiny_weights(model)
        self.plain = one_pass.Reference(
            config,
            one_pass.tensors(config, own),
            whole["model.embed_tokens.weight"],
            whole["lm_head.weight"],
        )
        self.chance = random.Random(seed)
        self.source = torch.Generator().manual_seed(seed)
        self.drafter = BlockDrafter(self.network, Calibration(), width=one_pass.VOCAB)
        self.draft: Draft = self.drafter.open(PROMPT)
        self.text, self.features = list(PROMPT), torch.zeros(0, 3 * one_pass.WIDTH)
        self.tree = Tree(len(PROMPT) - 1, PROMPT[-1])

    def feel(self, count: int) -> list[Any]:
        new = torch.randn(count, 3 * one_pass.WIDTH, generator=self.source)
        self.features = torch.cat((self.features, new))
        return [pack(part) for part in new.chunk(3, -1)]

    def prefill(self) -> None:
        for count in (3, len(PROMPT) - 4):
            self.draft.settle((), self.feel(count))

    def grow(self) -> list[Node]:
        """A few nodes below any."""
        for _ in range(6):
            parent = self.chance.choice(list(self.tree)).id
            self.tree.graft(parent, self.chance.randrange(one_pass.VOCAB), 0.0)
        return list(self.tree)

    def check(self) -> None:
        nodes = self.chance.sample(self.grow(), 4)
        paths = [self.tree.lineage(node.id) for node in nodes]
        for path, told in zip(paths, heads.said(self.draft.expand(paths)), strict=True):
            self.compare(path, told)

    def compare(self, path: list[Node], told: Opinion) -> None:
        chain = [node.token for node in path[1:]]
        laws = self.plain.laws(self.text, self.features, chain)
        if len(path) > len(laws):
            assert told == ()  # beyond the block
            return
        assert told is not None
        given = torch.zeros(one_pass.VOCAB)
        for guess in told:
            given[guess.token] = guess.probability
        assert torch.allclose(given, laws[-1], atol=1e-5)

    def advance(self) -> None:
        nodes = []
        for _ in range(self.chance.randrange(1, 4)):
            children = [n for n in self.tree if n.parent == self.tree.root]
            known = children and self.chance.random() < 0.8
            token = self.chance.choice(children).token if known else self.chance.randrange(61)
            self.tree.advance(token)
            nodes.append(self.tree[self.tree.root])
            self.text.append(token)
        self.draft.settle(nodes, self.feel(len(nodes)))


def tiny_weights(model: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(model / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_guesses_equal_the_reference(kind: str, model: Path, tmp_path: Path) -> None:
    play = Play(tmp_path, model, kind)
    play.prefill()
    for _ in range(5):
        play.check()
        play.check()
        play.advance()


def test_a_block_is_computed_once_for_each_root(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play, passes = Play(tmp_path, model), list[int]()
    block = play.network.block

    def counted(cache: KVCache, anchor: int, place: int) -> Tensor:
        passes.append(place)
        return block(cache, anchor, place)

    monkeypatch.setattr(play.network, "block", counted)
    play.prefill()
    for _ in range(3):
        play.check()
    assert passes == [len(PROMPT) - 1]
    play.advance()
    play.check()
    assert passes == [len(PROMPT) - 1, len(play.text) - 1]


def test_levels_are_those_of_the_block(model: Path, tmp_path: Path) -> None:
    assert Play(tmp_path / "a", model, "dflash").network.levels == 3
    assert Play(tmp_path / "b", model, "dspark").network.levels == 4
    config = one_pass.dspark(sample_from_anchor=False)
    assert load(tmp_path / "c", model, config).levels == 3


def test_features_that_come_in_pieces(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_drafter, "AT_ONCE", 2)
    play = Play(tmp_path, model)
    root = [play.tree.lineage(play.tree.root)]
    for _ in range(len(PROMPT) - 1):
        assert play.draft.expand(root) == [None]  # it waits for features
        play.draft.settle((), play.feel(1))
    play.check()


def test_a_prompt_of_one_token_has_no_context(model: Path, tmp_path: Path) -> None:
    play = Play(tmp_path, model)
    play.draft, play.text, play.tree = play.drafter.open([5]), [5], Tree(0, 5)
    play.check()


@pytest.mark.parametrize("shared", [1, 5, 8])
def test_a_text_takes_over_what_another_begins_with(
    shared: int, model: Path, tmp_path: Path
) -> None:
    play = Play(tmp_path, model)
    play.prefill()
    play.check()
    other, features = play.draft, play.features
    play.text = [*PROMPT[:shared], 11, 12]
    play.draft = play.drafter.open(play.text, source=(other, shared))
    play.tree = Tree(len(play.text) - 1, play.text[-1])
    play.features = features[: shared - 1]
    play.draft.settle((), play.feel(len(play.text) - shared))
    play.check()
    play.advance()
    play.check()


def test_without_the_beginning_there_are_no_guesses(model: Path, tmp_path: Path) -> None:
    play = Play(tmp_path, model)
    early = play.drafter.open(PROMPT)
    for source in ((None, 4), (early, 4), (NoGuesses(), 4)):
        assert isinstance(play.drafter.open(PROMPT, source=source), NoGuesses)
    assert isinstance(play.drafter.open(PROMPT, source=(None, 1)), BlockDraft)


def test_questions_that_make_no_sense_are_refused(model: Path, tmp_path: Path) -> None:
    play = Play(tmp_path, model)
    with pytest.raises(RemoteError, match="features of 1 taps came, 3 were asked"):
        play.draft.settle((), play.feel(1)[:1])
    play.features = play.features[:0]
    play.prefill()
    with pytest.raises(LocalError, match="asked about root 3, but 7 is the root"):
        play.draft.expand([[Node(3, 2, PROMPT[3], 0.0)]])


def test_the_factory_finds_out_what_kind_a_head_is(model: Path, tmp_path: Path) -> None:
    load(tmp_path, model, one_pass.dspark())
    settings = DraftSettings(kinds=("eagle",), head="x", dtype="float32")
    (found,) = drafters(settings, model, lambda name: tmp_path, lambda name: tmp_path)
    assert isinstance(found, BlockDrafter)
    assert (found.name, found.numbers, found.taps) == ("dspark", "float32", (2, 4, 6))


@pytest.mark.parametrize("kind", ["dflash", "dspark", "peagle", "mtp"])
def test_in_the_form_of_speculators_only_eagle3_is_read(
    kind: str, model: Path, tmp_path: Path
) -> None:
    config = speculators.config(speculators_model_type=kind, block_size=8)
    heads.write(tmp_path, config, speculators.tensors(config), pickled=False)
    settings = DraftSettings(kinds=("eagle",), head="x", dtype="float32")
    with pytest.raises(UserError, match=f"is '{kind}'; of this form only 'eagle3' is read"):
        drafters(settings, model, lambda name: tmp_path, lambda name: tmp_path)


# --- what is refused -------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"oak": 1}, r"config\.json: oak is not known here"),
    "nested": ({"dflash_config": {"oak": 1}}, r"dflash_config\.oak is not known here"),
    "no-object": ({"dflash_config": 5}, "dflash_config is 5, not an object"),
    "domino": (
        {"dflash_config": {"projector_type": "domino"}},
        r"dflash_config\.projector_type is 'domino', which is not supported",
    ),
    "dflash2": (
        {"architectures": ["DFlash2DraftModel"]},
        "of one-pass heads only DFlash and DSpark are read",
    ),
    "gated": ({"markov_head_type": "gated"}, "markov_head_type is 'gated', which is not supported"),
    "causal": ({"is_causal": True}, "is_causal is True, which is not supported"),
    "window": ({"layer_types": ["sliding_attention"] * 2}, "layer_types is .* not supported"),
    "no-ids": ({"target_layer_ids": None}, "target_layer_ids is not there"),
    "no-mask": ({"mask_token_id": None}, "mask_token_id is not there"),
    "no-size": ({"block_size": None}, "block_size is not there"),
    "size": ({"block_size": 1}, "block_size is 1 .*>= 2"),
    "mask": ({"mask_token_id": 61}, "mask_token_id is 61, but the model's tokens end at 60"),
    "order": ({"target_layer_ids": [5, 3, 1]}, r"\[5, 3, 1\], but must ascend from -1 to 6"),
    "last": ({"target_layer_ids": [1, 3, 7]}, r"\[1, 3, 7\], but must ascend from -1 to 6"),
    "target": ({"num_target_layers": 9}, "num_target_layers is 9, the model's is 8"),
    "width": ({"target_hidden_size": 48}, "target_hidden_size is 48, the model's is 32"),
    "vocabulary": ({"vocab_size": 60}, "vocab_size is 60, the model's is 61"),
    "family": ({"model_type": "gemma2"}, "model_type is 'gemma2'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str, model: Path, tmp_path: Path) -> None:
    more, why = WRONG[name]
    heads.write(tmp_path, one_pass.dspark() | more, one_pass.tensors(one_pass.dspark()), False)
    with pytest.raises(UserError, match=why):
        load_block(tmp_path, model, dtype="float32", device="cpu")


@pytest.mark.parametrize(
    "name", ["layers.1.self_attn.q_norm.weight", "markov_head.markov_w2.weight", "fc.weight"]
)
def test_a_tensor_that_is_missing_is_named(name: str, model: Path, tmp_path: Path) -> None:
    tensors = one_pass.tensors(one_pass.dspark())
    del tensors[name]
    heads.write(tmp_path, one_pass.dspark(), tensors, pickled=False)
    with pytest.raises(UserError, match=f"{name} is missing"):
        load_block(tmp_path, model, dtype="float32", device="cpu")


def test_a_tensor_that_is_not_known_is_named(model: Path, tmp_path: Path) -> None:
    tensors = one_pass.tensors(one_pass.dspark()) | {"markov_head.gate_proj.weight": torch.ones(1)}
    heads.write(tmp_path, one_pass.dspark(), tensors, pickled=False)
    with pytest.raises(UserError, match=r"not known: markov_head\.gate_proj\.weight"):
        load_block(tmp_path, model, dtype="float32", device="cpu")


def test_the_embedding_counts_as_a_layer_before_all_others(model: Path, tmp_path: Path) -> None:
    config = one_pass.dspark(target_layer_ids=[-1, 0, 6])
    assert load(tmp_path, model, config).taps == (0, 1, 7)
