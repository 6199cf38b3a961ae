"""EAGLE-1 and EAGLE-3 equal a plain reference without any cache, whatever has been settled."""

import random
from pathlib import Path
from typing import Any

import heads
import pytest
import tiny
import torch
from torch import Tensor

from gardener.decoding.tree import Node, Tree
from gardener.draft.calibration import Calibration
from gardener.draft.eagle import Eagle1, Eagle3
from gardener.draft.eagle_files import load_eagle
from gardener.draft.incremental import Incremental
from gardener.model.tensors import pack

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
LAYERS = 8
THREE = {"architectures": ["LlamaForCausalLMEagle3"], "num_key_value_heads": 2}
OURS = THREE | {"target_fingerprint": "0:0"}
INDUCTION = THREE | {
    "draft_vocab_size": 24,
    "eagle_aux_hidden_state_layer_ids": [LAYERS],
}

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "eagle1": ({}, {}),
    "eagle1-no-bias": ({"bias": False, "num_key_value_heads": 2}, {}),
    "eagle3": (THREE | {"draft_vocab_size": 30, "head_dim": 16}, {"taps": 3}),
    "eagle3-renamed": (THREE | {"draft_vocab_size": 30}, {"taps": 3, "layer": "layers.0"}),
    "one-tap-borrowed": (
        OURS | {"draft_vocab_size": 24, "eagle_aux_hidden_state_layer_ids": [LAYERS]},
        {"taps": 1, "lm_head": False},
    ),
    "induction": (
        INDUCTION | {"induction_key_value_heads": 1},
        {"taps": 1, "lm_head": False},
    ),
    "more-induction-than-else": (
        INDUCTION | {"num_key_value_heads": 1, "induction_key_value_heads": 2},
        {"taps": 1, "lm_head": False},
    ),
}


def build(
    kind: str, folder: Path, gain: float = 1.0
) -> tuple[Eagle1 | Eagle3, heads.Plain, Tensor]:
    """A head, the same without a cache, and the target's output matrix. `gain`: of `fc`."""
    model = tiny.make("llama", folder / "model", num_hidden_layers=LAYERS)
    more, options = KINDS[kind]
    config = heads.config(**more)
    make = heads.eagle3_tensors if options else heads.eagle1_tensors
    tensors = make(config, **options)
    tensors["fc.weight"] *= gain
    heads.write(folder / "head", config, tensors, pickled=False)
    head = load_eagle(folder / "head", folder / "model", dtype="float32", device="cpu")
    table = model.model.embed_tokens.weight.detach()
    return head, heads.Plain(config, tensors, table), model.lm_head.weight.detach()


class Play:
    """A text with random features, a tree of guesses, and two drafters that should agree."""

    def __init__(self, head: Eagle1 | Eagle3, plain: heads.Plain, matrix: Tensor, seed: int):
        self.chance = random.Random(seed)
        self.source = torch.Generator().manual_seed(seed)
        self.head, self.plain, self.matrix = head, plain, matrix
        self.drafter = Incremental(head, Calibration(), width=6)
        self.draft = self.drafter.open(PROMPT)
        self.text: list[int] = list(PROMPT)
        self.features: list[Tensor] = []
        self.tree = Tree(len(PROMPT) - 1, PROMPT[-1])
        self.rows: dict[int, tuple[heads.Row, Tensor]] = {}

    def feel(self, count: int) -> list[Any]:
        """The next features of the text, as messages, one per tap."""
        new = torch.randn(count, len(self.head.taps) * 32, generator=self.source)
        self.features += list(new)
        return [pack(part) for part in new.chunk(len(self.head.taps), -1)]

    def prefill(self) -> None:
        for count in (3, len(PROMPT) - 4):
            self.draft.settle((), self.feel(count))

    def grow(self) -> None:
        """Ask about a few nodes, check the answers, and graft some of what was said, or not."""
        nodes = self.chance.sample(list(self.tree), min(len(self.tree), 3))
        paths = [self.tree.lineage(node.id) for node in nodes]
        for path, guesses in zip(paths, heads.said(self.draft.expand(paths)), strict=True):
            self.check(path, guesses)
            for guess in guesses[: self.chance.randrange(4)]:
                self.tree.graft(path[-1].id, guess.token, 0.0)
        if self.chance.random() < 0.5:  # what another drafter says
            for _ in range(2):
                parent = self.chance.choice(list(self.tree)).id
                self.tree.graft(parent, self.chance.randrange(61), 0.0)

    def check(self, path: list[Node], guesses: Any) -> None:
        rows: list[heads.Row] = []
        for token, feature in zip(self.text[1:], self.features, strict=False):
            rows.append(self.plain.input(token, feature, True, rows[-1] if rows else None))
        out = self.plain.output(rows)
        # A row of the tree stays as it was when it was first computed, on the text of that time.
        for node in path[1:]:
            if node.id not in self.rows:
                row = self.plain.input(node.token, out, False, rows[-1])
                self.rows[node.id] = row, self.plain.output([*rows, row])
            row, out = self.rows[node.id]
            rows.append(row)
        log_q = torch.log_softmax(self.plain.logits(out, self.matrix), -1)
        best, places = log_q.topk(6)
        if self.plain.three:
            places = places + self.plain.t["d2t"][places]
        assert [guess.token for guess in guesses] == places.tolist()
        expected = best.exp() / max(float(best.exp().sum()), 1.0)
        given = torch.tensor([guess.probability for guess in guesses])
        assert torch.allclose(given, expected, atol=1e-4)

    def advance(self) -> None:
        """Accept some tokens: of the tree, and perhaps one that is not there."""
        nodes = []
        for _ in range(self.chance.randrange(1, 4)):
            children = [n for n in self.tree if n.parent == self.tree.root]
            if children and self.chance.random() < 0.8:
                token = self.chance.choice(children).token
            else:
                token = self.chance.randrange(61)
            self.tree.advance(token)
            nodes.append(self.tree[self.tree.root])
            self.text.append(token)
        self.draft.settle(nodes, self.feel(len(nodes)))


@pytest.fixture(autouse=True)
def _no_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities as the network gives them."""
    monkeypatch.setattr(Calibration, "corrected", lambda self, chance, *where: chance)


@pytest.mark.parametrize("kind", KINDS)
def test_heads_equal_the_plain_reference(kind: str, tmp_path: Path) -> None:
    play = Play(*build(kind, tmp_path), seed=1)
    play.prefill()
    for _ in range(8):
        for _ in range(3):
            play.grow()
        play.advance()


def test_a_network_that_grows_on_its_own_outputs_stays_finite(tmp_path: Path) -> None:
    """Random weights make every output many times its input: without a limit, infinite at last."""
    play = Play(*build("eagle1", tmp_path, gain=30.0), seed=2)
    play.prefill()
    path = play.tree.lineage(play.tree.root)
    for _ in range(60):
        (guesses,) = heads.said(play.draft.expand([path]))
        assert all(0 <= guess.probability <= 1 for guess in guesses)
        path = [*path, play.tree.graft(path[-1].id, guesses[0].token, 0.0)]
