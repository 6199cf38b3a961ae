"""Every family obeys those fields of a config that it obeys in transformers, and no others."""

import logging
import re
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from benchmarks.drawn_configs import MODELS
from benchmarks.families import trial
from gardener.errors import UserError
from gardener.stages.load import load_stage

REFUSED_HERE = (
    r"hidden_act(ivation)? is 'relu2': only silu, .* are supported",
    r"use_bidirectional_attention is set: such a model writes no text",
)
"""All that is refused though transformers runs it."""

REFUSED_THERE = (
    # A scaling of a part of a head, which Phi alone knows what to do with.
    r"The size of tensor a \(\d+\) must match the size of tensor b \(\d+\)",
    r"Could not find a `sliding_window` argument",
)
"""What transformers fails at, and Gardener does not."""

COUNT = 12


@pytest.mark.parametrize("family", MODELS)
def test_drawn_configs_mean_what_they_mean_to_transformers(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same logits, or a refusal for one of few reasons; the soak draws 200 of each family."""
    caplog.set_level(logging.CRITICAL)
    same = 0
    for seed in range(COUNT):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = trial(family, seed, folder)
        if found.kind == "refused here":
            assert any(re.search(each, found.why) for each in REFUSED_HERE), (seed, found)
        elif found.kind == "refused there":
            assert any(re.search(each, found.why) for each in REFUSED_THERE), (seed, found)
        else:
            assert found.kind in ("same", "refused by both"), (seed, found)
        same += found.kind == "same"
    assert same >= COUNT // 3


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.self_attn.q_proj.bias",
        "model.layers.1.self_attn.q_norm.weight",
        "model.layers.4.mlp.up_proj.weight",  # there are layers 0 to 3
        "model.norm.bias",
        "lm_head.bias",
        "vision_tower.patch.weight",
    ],
)
def test_a_tensor_that_the_family_does_not_have_is_named(name: str, tmp_path: Path) -> None:
    tiny.make("llama", tmp_path)
    _add(tmp_path, name)
    with pytest.raises(UserError, match=f"does not have: (model\\.)?{re.escape(name)}: mend"):
        load_stage(tmp_path)


@pytest.mark.parametrize(
    "name", ["model.layers.1.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"]
)
def test_frequencies_of_old_checkpoints_are_passed_over(name: str, tmp_path: Path) -> None:
    tiny.make("llama", tmp_path)
    _add(tmp_path, name)
    load_stage(tmp_path)


def _add(folder: Path, name: str) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), name: torch.zeros(4)}, file, metadata={"format": "pt"})
