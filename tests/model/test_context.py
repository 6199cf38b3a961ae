"""How long a text may be, and that a model computes beyond its first length what transformers
does."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from real_stages import RealStages

from gardener.decoding.tree import Guess
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.slices import Slice
from gardener.model.context import context_length
from gardener.model.kv_slots import SlotTable
from gardener.model.tensors import unpack
from gardener.protocol.messages import Open
from gardener.protocol.room import MOST_CONTEXT
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage

TRAINED = 32
"""Tokens that the models here were made for before their rotation was scaled."""

SCALED = {
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    "yarn": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 16,
        "rope_theta": 10000.0,
    },
}

TEXT = [(7 * i + i // 5) % tiny.VOCAB for i in range(110)]


def scaled(kind: str, folder: Path) -> Any:
    return tiny.make("llama", folder, max_position_embeddings=TRAINED, rope_parameters=SCALED[kind])


@pytest.mark.parametrize(
    ("family", "trained", "rope", "tokens"),
    [
        ("llama", 4096, {"rope_type": "default", "rope_theta": 1e4}, 4096),
        ("llama", 4096, {"rope_type": "linear", "factor": 4.0}, 16384),  # Vicuna-16k
        ("llama", 2048, {"rope_type": "linear", "factor": 2.5}, 5120),
        ("llama", 4096, {"rope_type": "dynamic", "factor": 2.0}, 8192),
        (
            "qwen2",
            32768,
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            131072,
        ),
        (
            "qwen3",
            40960,
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            131072,
        ),
        ("qwen2", 32768, {"rope_type": "yarn", "factor": 4.0}, 131072),
        ("qwen2", 32768, {"rope_type": "yarn", "factor": None}, 32768),
        (
            "llama",
            131072,
            {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
            131072,
        ),
        (
            "phi3",
            131072,
            {"rope_type": "longrope", "factor": 32.0, "original_max_position_embeddings": 4096},
            131072,
        ),
        ("gemma3_text", 131072, {"rope_type": "linear", "factor": 8.0}, 131072),
        ("llama", 4096, {"rope_type": "linear", "factor": 1e30}, MOST_CONTEXT),
        ("llama", 4096, {"rope_type": "linear", "factor": 1e-9}, 1),
    ],
)
def test_scaling_reaches_as_far_as_its_family_means(
    family: str, trained: int, rope: dict[str, Any], tokens: int
) -> None:
    assert context_length(family, rope, trained) == tokens


@pytest.mark.parametrize("kind", SCALED)
def test_the_length_is_read_from_the_config(kind: str, tmp_path: Path) -> None:
    scaled(kind, tmp_path)
    assert Architecture.read(tmp_path).context == 128


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("chunk", [110, 9])
def test_logits_far_beyond_the_first_length_are_those_of_transformers(
    kind: str, chunk: int, tmp_path: Path
) -> None:
    """Its own for the whole text at once; for dynamic scaling, where the frequencies of the whole
    then depend on its length, those that it takes when it decodes token by token."""
    model = scaled(kind, tmp_path)
    stage = load_stage(tmp_path)
    table = SlotTable(len(TEXT), 128)
    stage.open(Open(1, len(TEXT), 128, taps=(tiny.LAYERS,)))
    rows = []
    for first in range(0, len(TEXT), chunk):
        ids = range(first, min(first + chunk, len(TEXT)))
        placement = table.place(list(ids), [i - 1 for i in ids], list(ids))
        tokens = [TEXT[i] for i in ids]
        done = stage.run([PlacedSegment(1, placement, tokens=tokens, taps=(tiny.LAYERS,))])
        assert done is not None
        rows.append(unpack(done[0].features[0]))
    ours = model.lm_head(torch.cat(rows)).detach()
    torch.testing.assert_close(ours[-1], tiny.last_logits(model, TEXT), rtol=1e-4, atol=1e-4)
    if kind != "dynamic":
        torch.testing.assert_close(ours, tiny.logits(model, TEXT), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("policy", ["plain", "gardener"])
def test_two_stages_write_on_beyond_the_first_length(
    kind: str, policy: str, tmp_path: Path
) -> None:
    """What transformers writes when it decodes, from before the first length until far beyond."""
    model, prompt = scaled(kind, tmp_path), TEXT[:24]
    expected = list(prompt)
    while len(expected) < 72:
        expected.append(int(tiny.last_logits(model, expected).argmax()))
    cut = [Slice(0, 2, tiny.LAYERS), Slice(2, 4, tiny.LAYERS)]
    ring = RealStages(tmp_path, cut, random.Random(1))

    def drafts(text: Sequence[int]) -> tuple[Guess, ...]:
        """Right four times out of five."""
        right = expected[len(text)] if len(text) < len(expected) else 0
        return Guess((right + (len(text) % 5 == 0)) % tiny.VOCAB, 0.9), Guess(0, 0.05)

    asked = ring.ask(prompt, 48, drafts=drafts, policy=policy)
    ring.finish()
    assert [*prompt, *asked.emitted] == expected
