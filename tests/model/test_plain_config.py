"""A config that is read without transformers is read as transformers reads it."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from transformers import AutoConfig

from gardener.draft.eagle_config import HEADS_OWN
from gardener.draft.shipped import heads
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.plain_config import plain_config

LLAMA3 = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "vicuna-7b-v1.5": {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 11008,
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "pad_token_id": 0,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.31.0",
        "use_cache": True,
        "vocab_size": 32000,
    },
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": LLAMA3,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.42.3",
        "use_cache": True,
        "vocab_size": 128256,
    },
    "mistral-7b-v0.1": {
        "architectures": ["MistralForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0",
        "use_cache": True,
        "vocab_size": 32000,
    },
    "qwen2.5-7b": {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 3584,
        "initializer_range": 0.02,
        "intermediate_size": 18944,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "model_type": "qwen2",
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 152064,
    },
    "qwen3-8b": {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 12288,
        "max_position_embeddings": 40960,
        "max_window_layers": 36,
        "model_type": "qwen3",
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "olmo-2-1124-7b": {
        "architectures": ["Olmo2ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": 100257,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 11008,
        "max_position_embeddings": 4096,
        "model_type": "olmo2",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "pad_token_id": 100277,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.47.0.dev0",
        "use_cache": False,
        "vocab_size": 100352,
    },
    "granite-3.1-2b": {
        "architectures": ["GraniteForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.1,
        "attention_multiplier": 0.015625,
        "bos_token_id": 0,
        "embedding_multiplier": 12.0,
        "eos_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 8192,
        "logits_scaling": 8.0,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "granite",
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "pad_token_id": 0,
        "residual_multiplier": 0.22,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 5000000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.47.0.dev0",
        "use_cache": True,
        "vocab_size": 49155,
    },
}

PLAIN = {
    *("llama", "vicuna", "smollm", "biased", "wide-heads", "llama3", "mistral", "qwen2", "qwen3"),
    *("olmo2", "granite"),
}
"""Of the tiny ones; the others have a scaling or windows for which transformers is asked."""


def facts(raw: dict[str, Any], folder: Path) -> tuple[dict[str, Any], int]:
    """What transformers makes of it."""
    (folder / "config.json").write_text(json.dumps(raw))
    shape = Architecture.from_config(AutoConfig.from_pretrained(folder))
    return json.loads(json.dumps(shape.facts())), shape.context


def facts_without(raw: dict[str, Any]) -> tuple[dict[str, Any], int] | None:
    """What is made of it without transformers, if that can be."""
    config = plain_config(raw)
    if config is None:
        return None
    shape = Architecture.from_config(config)
    return json.loads(json.dumps(shape.facts())), shape.context


def tiny_config(kind: str) -> dict[str, Any]:
    config_class, own = tiny.CONFIGS[kind]
    config = config_class(**{**tiny.SIZES, **own})
    raw: dict[str, Any] = json.loads(config.to_json_string())
    return raw


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_need_no_transformers(name: str, tmp_path: Path) -> None:
    assert facts_without(PUBLISHED[name]) == facts(PUBLISHED[name], tmp_path)


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_what_transformers_writes_is_read_as_it_reads_it(kind: str, tmp_path: Path) -> None:
    raw = tiny_config(kind)
    found = facts_without(raw)
    assert (found is not None) == (kind in PLAIN)
    assert found is None or found == facts(raw, tmp_path)


@pytest.mark.parametrize("head", list(heads()), ids=lambda head: head.name)
def test_shipped_heads_need_no_transformers(head: Path, tmp_path: Path) -> None:
    raw = json.loads((head / "config.json").read_text())
    raw = {key: value for key, value in raw.items() if key not in HEADS_OWN}
    assert facts_without(raw) == facts(raw, tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_change_of_a_field_is_read_otherwise(name: str, tmp_path: Path) -> None:
    """Each field missing, null, another number, another kind of thing: the same as transformers
    makes of it, or left to transformers."""
    whole = PUBLISHED[name]
    others: tuple[object, ...] = (None, 3, True, "x", 0.5, [], {}, ["x"])
    for key in whole:
        changed = [{k: v for k, v in whole.items() if k != key}]
        changed += [{**whole, key: value} for value in others]
        for raw in changed:
            found = facts_without(raw)
            if found is not None:
                assert found == facts(raw, tmp_path), (key, raw.get(key))


@pytest.mark.parametrize(
    "more",
    [
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        {"partial_rotary_factor": 0.5},
        {"layer_types": ["sliding_attention"] * 32},
        {"a_field_of_tomorrow": 1},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_is_not_known_is_left_to_transformers(more: dict[str, Any]) -> None:
    assert plain_config(PUBLISHED["llama-3.1-8b"]) is not None
    assert plain_config(PUBLISHED["llama-3.1-8b"] | more) is None
