"""Every architecture of GGUF, as transformers computes it from config and weights that are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_models
import pytest
import tiny
import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from gardener.errors import UserError
from gardener.evaluation.transformers_model import load_transformers
from gardener.model.checkpoint.resolve import resolve
from gardener.model.checkpoint.tensors import Checkpoint, canonical

TIED = gguf_models.SIZES | {"tie_word_embeddings": True}
DEEP = TIED | {"num_hidden_layers": 7, "head_dim": 32}
TOKENS = [1, 5, 9, 5, 300, 17, 2, 44, 44, 3, 8, 250, 7, 7, 1, 60]

CASES: dict[str, tuple[Callable[[], PretrainedConfig], dict[str, Any]]] = {
    "llama": (
        lambda: LlamaConfig(**gguf_models.SIZES),
        {"vocab_size": 5},
    ),  # the embedding says how many
    "biased": (lambda: LlamaConfig(**gguf_models.SIZES, attention_bias=True, mlp_bias=True), {}),
    "wide heads": (lambda: LlamaConfig(**gguf_models.SIZES, head_dim=32), {"expert_count": 0}),
    "mixtral": (
        lambda: MixtralConfig(**gguf_models.SIZES, num_local_experts=4, num_experts_per_tok=2),
        {"expert_count": 4, "expert_used_count": 2},
    ),
    "qwen2": (lambda: Qwen2Config(**TIED), {}),
    "qwen3": (lambda: Qwen3Config(**gguf_models.SIZES, head_dim=32), {}),
    "qwen3moe": (
        lambda: Qwen3MoeConfig(
            **gguf_models.SIZES | {"head_dim": 32},
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            norm_topk_prob=True,
        ),
        {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32},
    ),
    "gemma2": (
        lambda: Gemma2Config(
            **DEEP,
            query_pre_attn_scalar=32,
            sliding_window=5,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        ),
        {
            "attention.sliding_window": 5,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        lambda: Gemma3TextConfig(
            **DEEP,
            query_pre_attn_scalar=32,
            sliding_window=5,
            rope_parameters={
                "full_attention": {"rope_type": "linear", "rope_theta": 5e4, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        ),
        {
            "attention.sliding_window": 5,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
    ),
    "phi3": (
        lambda: Phi3Config(**gguf_models.SIZES, sliding_window=6),
        {"attention.sliding_window": 6, "rope.scaling.original_context_length": 128},
    ),
    "partly rotated": (
        lambda: Phi3Config(
            **gguf_models.SIZES, rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.75}
        ),
        {"attention.sliding_window": 0},
    ),
    "olmo2": (lambda: Olmo2Config(**gguf_models.SIZES), {}),
    "granite": (
        lambda: GraniteConfig(
            **TIED,
            attention_multiplier=0.25,
            embedding_multiplier=3.0,
            residual_multiplier=0.5,
            logits_scaling=4.0,
        ),
        {
            "attention.scale": 0.25,
            "embedding_scale": 3.0,
            "residual_scale": 0.5,
            "logit_scale": 4.0,
        },
    ),
    "smollm3": (lambda: SmolLM3Config(**TIED | {"num_hidden_layers": 5}), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_config_and_weights_are_those_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    config, metadata = CASES[case]
    written = gguf_models.make(tmp_path / "a.gguf", config(), "Q8_0", **metadata)
    folder = resolve(str(written.path))
    checkpoint = Checkpoint(folder)
    assert checkpoint.names() == sorted(map(canonical, written.values))
    for name, value in written.values.items():
        assert torch.equal(checkpoint.read(canonical(name), tuple(value.shape)), value), name
    ours = load_transformers(folder, torch.float32).eval()
    expected = tiny.logits(written.model, TOKENS)
    torch.testing.assert_close(tiny.logits(ours, TOKENS), expected, rtol=0, atol=1e-5)


def test_experts_may_be_tensors_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in files of early Mixtral."""
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    config, metadata = CASES["mixtral"]
    written = gguf_models.make(tmp_path / "a.gguf", config(), "Q8_0", **metadata)
    apart = {}
    for name, (raw, kind) in written.tensors.items():
        if "_exps." in name:
            for number, expert in enumerate(raw):
                apart[name.replace("_exps.", f".{number}.")] = expert, kind
        else:
            apart[name] = raw, kind
    gguf_models.write(tmp_path / "b.gguf", written.metadata, apart)
    checkpoint = Checkpoint(resolve(str(tmp_path / "b.gguf")))
    assert checkpoint.names() == sorted(map(canonical, written.values))
    for name, value in written.values.items():
        assert torch.equal(checkpoint.read(canonical(name), tuple(value.shape)), value), name
    gguf_models.write(tmp_path / "c.gguf", written.metadata, written.tensors | apart)
    with pytest.raises(UserError, match=r"it has model\.layers\.\S+ twice, as blk\.\S+ and"):
        resolve(str(tmp_path / "c.gguf"))
