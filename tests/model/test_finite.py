"""Weights that are no numbers are refused by name, and so is a reference that computes none."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from gardener.errors import UserError
from gardener.evaluation.picking import picker
from gardener.holder.outage import not_numbers
from gardener.model.finite import is_finite
from gardener.protocol.messages import Card
from gardener.protocol.sampling import GREEDY
from gardener.stages.load import load_stage


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_single_odd_number_is_seen_wherever_it_stands(dtype: torch.dtype, odd: float) -> None:
    rows = torch.randn(5, 70).to(dtype)
    assert is_finite(rows)
    assert is_finite(rows[:0])
    for place in (0, 69, 140, 349):
        spoilt = rows.clone()
        spoilt.view(-1)[place] = odd
        assert not is_finite(spoilt)


@pytest.mark.parametrize(
    ("number", "dtype", "why"),
    [
        (math.nan, "float32", "holds values that are not numbers: take the model's files"),
        (-math.inf, "float16", "holds values that are not numbers: take the model's files"),
        (1e5, "float16", "too large for float16: take --dtype bfloat16 or float32"),
        (1e5, "bfloat16", None),
    ],
)
@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"]
)
def test_weights_that_are_no_numbers_are_refused_by_name(
    name: str, number: float, dtype: str, why: str | None, tmp_path: Path
) -> None:
    model: Any = tiny.make("llama", tmp_path)
    model.get_parameter(name).data.view(-1)[7] = number
    model.save_pretrained(tmp_path)
    if why is None:
        load_stage(tmp_path, dtype=dtype)
        return
    with pytest.raises(UserError, match=f"{name} holds .*{why.split(' ', 1)[1]}"):
        load_stage(tmp_path, dtype=dtype)


def test_a_reference_without_numbers_is_no_reference() -> None:
    pick = picker(GREEDY, 3)
    assert pick([1, 2, 3], torch.tensor([0.0, 2.0])).token == 1
    for odd in (math.nan, math.inf):
        with pytest.raises(UserError, match="the logits after token 2 of the text are no numbers"):
            pick([1, 2, 3], torch.tensor([0.0, odd]))
    with pytest.raises(UserError, match="no numbers"):
        pick([1, 2, 3], torch.full((4,), -math.inf))


def cards(dtype: str) -> list[Card]:
    return [
        Card(stage, "oak", "1", first, first + 2, 4, 8, "m", dtype, "none", 0)
        for stage, first in ((1, 0), (2, 2))
    ]


@pytest.mark.parametrize(
    ("layer", "dtype", "sentence"),
    [
        (
            2,
            "float16",
            "stage 2 computes what is no number, in float16: layer 2 is the first that computes "
            "none; 5 tokens were written; float16 holds nothing beyond 65504: start the stages "
            "with --dtype bfloat16 or float32",
        ),
        (
            -1,
            "float32",
            "stage 1 computes what is no number, in float32: the embedding of a token holds none; "
            "5 tokens were written; take the model's files from their source again",
        ),
        (
            4,
            "bfloat16",
            "stage 2 computes what is no number, in bfloat16: the logits are none; 5 tokens were "
            "written; take the model's files from their source again, or another --device",
        ),
    ],
)
def test_the_sentence_names_the_stage_the_layer_and_the_way_out(
    layer: int, dtype: str, sentence: str
) -> None:
    assert not_numbers(layer, cards(dtype), 5) == sentence
