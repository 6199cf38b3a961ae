"""The metadata of a GGUF file as a `config.json`, with the names that transformers has.

One row of `FAMILIES` for each architecture: what the family is called there, and what it says
beyond `_common`. What llama.cpp knows of a family without reading it from the file stands here as
well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gardener.errors import UserError
from gardener.model.checkpoint.gguf_header import GGUFTensor
from gardener.model.checkpoint.gguf_keys import Keys
from gardener.model.checkpoint.gguf_names import LAYOUTS
from gardener.model.checkpoint.gguf_rope import Factors, rope_parameters

Tensors = Mapping[str, GGUFTensor]
"""All tensors of a file by their names there."""

Config = dict[str, Any]

_BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
"""Fields that are true where there is such a tensor: all layers have the same ones."""

_GELU = "gelu_pytorch_tanh"


@dataclass(frozen=True)
class GGUFFamily:
    """`model_type` and class in transformers; `more` adds to a config what is the family's own."""

    model_type: str
    name: str
    more: Callable[[Keys, Config], Config]


def config_of(metadata: Mapping[str, Any], tensors: Tensors, factors: Factors) -> Config:
    """Raises UserError for a model that is not supported, and for metadata that are missing, odd or
    not known."""
    keys = Keys(metadata)
    name = keys.architecture
    if name not in LAYOUTS:
        raise UserError(
            f"its general.architecture is {name}; supported are {', '.join(sorted(LAYOUTS))}"
        )
    if name == "llama" and keys.get("expert_count", int, 0):
        name = "mixtral"
    family = FAMILIES[name]
    config = _common(keys, tensors, factors)
    config |= {"model_type": family.model_type, "architectures": [family.name]}
    config |= family.more(keys, config)
    keys.finish()
    return config


def _common(keys: Keys, tensors: Tensors, factors: Factors) -> Config:
    """What every family has."""
    if "token_embd.weight" not in tensors:
        raise UserError("it has no tensor token_embd.weight")
    width, heads = keys.size("embedding_length"), keys.size("attention.head_count")
    groups = keys.size("attention.head_count_kv") if keys.has("attention.head_count_kv") else heads
    context = keys.size("context_length")
    head_dim = keys.get("attention.key_length", int, width // heads)
    keys.expect("attention.value_length", head_dim)
    keys.expect("attention.causal", True)
    if not keys.get("expert_count", int, 0):
        keys.expect("expert_used_count", 0)
    rotated = keys.get("rope.dimension_count", int, head_dim)
    share = {}
    if rotated != head_dim:
        share = {"partial_rotary_factor": _rotated_share(keys, rotated, head_dim)}
    return {
        "hidden_size": width,
        "intermediate_size": keys.size("feed_forward_length"),
        "num_hidden_layers": keys.size("block_count", most=1024),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head_dim,
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "max_position_embeddings": context,
        "rms_norm_eps": keys.need("attention.layer_norm_rms_epsilon", float),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in tensors,
        "rope_parameters": rope_parameters(keys, factors, context, rotated) | share,
        **{name: True for name, tensor in _BIASES.items() if tensor in tensors},
        "bos_token_id": keys.token("bos"),
        "eos_token_id": keys.token("eos"),
        "pad_token_id": keys.token("padding"),
    }


def _rotated_share(keys: Keys, rotated: int, head_dim: int) -> float:
    """How much of each head is rotated, for the family that obeys it. Raises UserError."""
    share = rotated / head_dim
    known = keys.architecture == "phi3" and 0 < rotated < head_dim and rotated % 2 == 0
    if not known or int(head_dim * share) != rotated:  # transformers rounds down
        raise UserError(
            f"its {keys.architecture}.rope.dimension_count is {rotated}, of a head_dim of "
            f"{head_dim}, which is not supported for {keys.architecture}"
        )
    return share


def _llama(keys: Keys, config: Config) -> Config:
    keys.expect("tensor_data_layout", "Meta AI original pth")  # as converters lay it out, too
    return {}


def _mixtral(keys: Keys, config: Config) -> Config:
    return {
        "num_local_experts": keys.need("expert_count", int),
        "num_experts_per_tok": keys.need("expert_used_count", int),
        "sliding_window": None,
    }


def _without_head_dim(config: Config) -> None:
    """For families that have no such field, and take width by heads. Raises UserError."""
    if config.pop("head_dim") * config["num_attention_heads"] != config["hidden_size"]:
        raise UserError("its attention.key_length is not embedding_length by head_count")


def _qwen2(keys: Keys, config: Config) -> Config:
    _without_head_dim(config)
    if not config.pop("attention_bias", False):
        raise UserError("it has no tensor blk.0.attn_q.bias")
    return {"use_sliding_window": False}


def _qwen3(keys: Keys, config: Config) -> Config:
    return {"use_sliding_window": False}


def _qwen3moe(keys: Keys, config: Config) -> Config:
    keys.expect("expert_gating_func", 1)
    keys.expect("expert_weights_scale", 0.0, 1.0)
    keys.expect("expert_shared_feed_forward_length", 0)
    return {
        "use_sliding_window": False,
        "num_experts": keys.need("expert_count", int),
        "num_experts_per_tok": keys.need("expert_used_count", int),
        "moe_intermediate_size": keys.need("expert_feed_forward_length", int),
        "norm_topk_prob": keys.get("expert_weights_norm", bool, True),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _gemma(config: Config, largest: int, full: int) -> Config:
    """`largest`: layers of the largest size, whose scores are scaled otherwise. `full`: one layer
    in so many sees all of the text."""
    count = config["num_hidden_layers"]
    per_head = config["hidden_size"] // config["num_attention_heads"]
    return {
        "hidden_activation": _GELU,
        "query_pre_attn_scalar": per_head if count == largest else config["head_dim"],
        "layer_types": [
            "full_attention" if (layer + 1) % full == 0 else "sliding_attention"
            for layer in range(count)
        ],
    }


def _gemma2(keys: Keys, config: Config) -> Config:
    del config["hidden_act"]
    return _gemma(config, largest=46, full=2) | {  # early files lack some of these
        "attn_logit_softcapping": keys.get("attn_logit_softcapping", float, 50.0),
        "final_logit_softcapping": keys.get("final_logit_softcapping", float, 30.0),
        "sliding_window": keys.get("attention.sliding_window", int, 4096),
    }


def _gemma3(keys: Keys, config: Config) -> Config:
    del config["hidden_act"]
    local = keys.positive("rope.freq_base_swa", 10000.0)
    keys.expect("attention.sliding_window_pattern", 6)
    return _gemma(config, largest=62, full=6) | {
        "final_logit_softcapping": keys.get("final_logit_softcapping", float, 0.0) or None,
        "attn_logit_softcapping": None,
        "sliding_window": keys.need("attention.sliding_window", int),
        "rope_parameters": {
            "full_attention": config["rope_parameters"],
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    }


def _phi3(keys: Keys, config: Config) -> Config:
    _without_head_dim(config)
    kind = config["rope_parameters"]["rope_type"]
    if kind not in ("default", "longrope"):
        scaled = f"phi3.rope.scaling.factor with {kind} scaling"
        said = "rope_freqs.weight" if kind == "factors" else scaled
        raise UserError(f"its {said} is not supported for phi3")
    context = config["max_position_embeddings"]
    return {
        "original_max_position_embeddings": keys.get(
            "rope.scaling.original_context_length", int, context
        ),
        "sliding_window": keys.get("attention.sliding_window", int, 0) or None,
    }


def _granite(keys: Keys, config: Config) -> Config:
    keys.expect("rope.scaling.finetuned", True)  # llama.cpp: else it has no rotary embedding
    scale = config["head_dim"] ** -0.5
    _without_head_dim(config)
    return {
        "attention_multiplier": keys.get("attention.scale", float, 0.0) or scale,
        "embedding_multiplier": keys.get("embedding_scale", float, 0.0) or 1.0,
        "residual_multiplier": keys.get("residual_scale", float, 0.0) or 1.0,
        "logits_scaling": keys.get("logit_scale", float, 0.0) or 1.0,
    }


def _olmo2(keys: Keys, config: Config) -> Config:
    _without_head_dim(config)
    return {}


def _smollm3(keys: Keys, config: Config) -> Config:
    rotating = [int((layer + 1) % 4 != 0) for layer in range(config["num_hidden_layers"])]
    return {
        "no_rope_layers": rotating,
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
        "sliding_window": None,
    }


FAMILIES = {
    "llama": GGUFFamily("llama", "LlamaForCausalLM", _llama),
    "mixtral": GGUFFamily("mixtral", "MixtralForCausalLM", _mixtral),
    "qwen2": GGUFFamily("qwen2", "Qwen2ForCausalLM", _qwen2),
    "qwen3": GGUFFamily("qwen3", "Qwen3ForCausalLM", _qwen3),
    "qwen3moe": GGUFFamily("qwen3_moe", "Qwen3MoeForCausalLM", _qwen3moe),
    "gemma2": GGUFFamily("gemma2", "Gemma2ForCausalLM", _gemma2),
    "gemma3": GGUFFamily("gemma3_text", "Gemma3ForCausalLM", _gemma3),
    "phi3": GGUFFamily("phi3", "Phi3ForCausalLM", _phi3),
    "olmo2": GGUFFamily("olmo2", "Olmo2ForCausalLM", _olmo2),
    "granite": GGUFFamily("granite", "GraniteForCausalLM", _granite),
    "smollm3": GGUFFamily("smollm3", "SmolLM3ForCausalLM", _smollm3),
}
"""By `general.architecture`; mixtral is a llama with experts there."""
