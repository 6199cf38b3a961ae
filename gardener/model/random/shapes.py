"""The configs of well-known models, as their own `config.json` has them. Without torch."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gardener.errors import UserError
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD, NORM

_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}

_LLAMA_2 = _LLAMA | {
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
}

_LLAMA_3 = _LLAMA | {
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}

_SCALED = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "llama-2-7b": _LLAMA_2
    | {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "llama-2-13b": _LLAMA_2
    | {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
    },
    "llama-3.1-8b": _LLAMA_3
    | {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "rope_scaling": _SCALED | {"factor": 8.0},
    },
    "llama-3.2-1b": _LLAMA_3
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "head_dim": 64,
        "tie_word_embeddings": True,
        "rope_scaling": _SCALED | {"factor": 32.0},
    },
}
"""By the names that `gardener make-random --like` takes."""

STD = 0.02
"""Of embedding and output matrix, as those of such models are when their training begins."""


def config_like(name: str, layers: int | None) -> dict[str, Any]:
    """The config of a model with this many layers; None: as many as it has. Raises UserError for
    more than that."""
    config = dict(SHAPES[name])
    there = config["num_hidden_layers"]
    if layers is not None and not 1 <= layers <= there:
        raise UserError(f"--layers is {layers}, and {name} has {there}: give 1 to {there}")
    return config | {"num_hidden_layers": layers or there}


def matrices(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, int], float]]:
    """Name, outputs and inputs, and standard deviation of each. What a layer gives is of one size
    at any width, and what it adds to the residual smaller the more layers there are (GPT-2, 2.3);
    it outweighs the embedding, or a tied model would say the same token over and over."""
    vocab, width, layers = (
        config[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers")
    )
    yield EMBEDDING, (vocab, width), STD
    for layer in range(layers):
        for name, (outputs, inputs) in _layer(config).items():
            added = name in ("self_attn.o_proj", "mlp.down_proj")
            std = inputs**-0.5 / (math.sqrt(2 * layers) if added else 1.0)
            yield f"model.layers.{layer}.{name}.weight", (outputs, inputs), std
    if not config["tie_word_embeddings"]:
        yield HEAD, (vocab, width), STD


def _layer(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", width // heads)
    queries, keys = heads * head_dim, kv_heads * head_dim
    return {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }


def norms(config: Mapping[str, Any]) -> Iterator[str]:
    """The weights of norms, which are all 1."""
    for layer in range(config["num_hidden_layers"]):
        yield f"model.layers.{layer}.input_layernorm.weight"
        yield f"model.layers.{layer}.post_attention_layernorm.weight"
    yield NORM
