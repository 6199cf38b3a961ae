"""Stages of mixtures of experts write what the plain model does, whatever is speculated."""

import random
from functools import cache
from pathlib import Path

import pytest
import tiny
from fakes import Drafts
from real_stages import RealStages, Truth

from gardener.decoding.policy import POLICIES
from gardener.decoding.tree import Node
from gardener.draft.ngram import NGram
from gardener.model.checkpoint.slices import Slice

PROMPT = [3, 1, 4, 1, 5, 9, 3, 1, 4, 1]
CUTS = ([4], [1, 4], [1, 3, 4])


@cache
def _made(kind: str, folder: Path) -> Truth:
    return Truth(tiny.make(kind, folder))


def _after_the_text() -> Drafts:
    """Guesses of the n-gram drafter for a text, as if it had been the prompt."""
    drafter = NGram()
    return lambda text: drafter.open(text).expand([[Node(0, 0, text[-1], 0.0)]])[0]


@pytest.mark.parametrize(("turn", "policy"), [*enumerate(POLICIES)])
@pytest.mark.parametrize("kind", ["mixtral", "qwen3-moe"])
def test_the_text_of_the_plain_model(
    kind: str, turn: int, policy: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / kind
    truth, ends = _made(kind, folder), CUTS[turn % len(CUTS)]
    cut = [Slice(a, b, 4) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    chance = random.Random(turn)
    ring = RealStages(folder, cut, chance)
    drafts = [truth.drafts(chance), _after_the_text()]
    asked = [ring.ask(PROMPT[each:], 9, drafts=drafts[each], policy=policy) for each in (0, 1)]
    ring.finish()
    for each, one in enumerate(asked):
        assert one.emitted == truth.after(PROMPT[each:], 9)
    assert ring.failures == []
