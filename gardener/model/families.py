"""The families of models that can be run: which fields of its config each obeys.

A row of `FAMILIES` says how a family differs from Llama. What a row does not read has no effect in
that family, as in transformers: `attention_bias` in a Qwen2 config, `sliding_window` in a Llama
config. Such fields stand in configs that people publish, so a field obeyed by mistake is as wrong
as one that is overlooked.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from gardener.errors import UserError

Norms: TypeAlias = Literal["before", "after", "around"]
"""Where a layer has its norms: before attention and the feed-forward part, after them, or both."""

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_pytorch_tanh",
    "gelu_new": "gelu_pytorch_tanh",
    "gelu_fast": "gelu_pytorch_tanh",
    "relu": "relu",
}
"""Functions within a feed-forward part, by the names that configs use: what we call them."""

Differences: TypeAlias = dict[str, Any]
"""Fields of `architecture.Architecture`, by name."""


@dataclass(frozen=True)
class Mixture:
    """A feed-forward part made of experts, of which each row goes through a few.

    experts     how many there are
    chosen      how many of them a row goes through
    inner       width of each
    normalised  whether the shares of those that are chosen sum up to one
    layers      for each layer of the model, whether it has experts
    """

    experts: int
    chosen: int
    inner: int
    normalised: bool
    layers: tuple[bool, ...]


@dataclass(frozen=True)
class Family:
    """One family: the class that it names in `architectures`, and what its config says beyond the
    sizes. `activation`: the field with the name of the function within its feed-forward part."""

    model: str
    differences: Callable[[Any], Differences]
    activation: str = "hidden_act"


def _llama(config: Any) -> Differences:
    return {**_attention_bias(config), "mlp_bias": bool(getattr(config, "mlp_bias", False))}


def _mistral(config: Any) -> Differences:
    return {"windows": _same_window(config)}


def _ministral(config: Any) -> Differences:
    return {"windows": _windows_by_type(config)}


def _mixtral(config: Any) -> Differences:
    mixture = Mixture(
        experts=config.num_local_experts,
        chosen=config.num_experts_per_tok,
        inner=config.intermediate_size,
        normalised=True,
        layers=(True,) * config.num_hidden_layers,
    )
    return {"windows": _same_window(config), "mixture": mixture}


def _qwen2(config: Any) -> Differences:
    return {"qkv_bias": True, "windows": _windows_by_type(config)}


def _qwen3(config: Any) -> Differences:
    return {**_attention_bias(config), "qk_norm": True, "windows": _windows_by_type(config)}


def _qwen3_moe(config: Any) -> Differences:
    dense, step = config.mlp_only_layers or (), config.decoder_sparse_step
    mixture = Mixture(
        experts=config.num_experts,
        chosen=config.num_experts_per_tok,
        inner=config.moe_intermediate_size,
        normalised=bool(config.norm_topk_prob),
        layers=tuple(
            config.num_experts > 0 and layer not in dense and (layer + 1) % step == 0
            for layer in range(config.num_hidden_layers)
        ),
    )
    return {
        **_attention_bias(config),
        "qk_norm": True,
        "windows": _same_window(config),
        "mixture": mixture if any(mixture.layers) else None,
    }


def _gemma2(config: Any) -> Differences:
    return {
        **_gemma(config),
        "softcap": config.attn_logit_softcapping,
        "logit_softcap": config.final_logit_softcapping,
    }


def _gemma3(config: Any) -> Differences:
    kinds = config.layer_types
    # By kind of layer; transformers looks for `truncate` of YaRN beside the kinds, not within.
    ropes = dict(config.rope_parameters)
    used = sorted(set(kinds) & set(ropes))
    return {
        **_gemma(config),
        "qk_norm": True,
        "ropes": tuple(_rope(ropes[kind], without=("truncate",)) for kind in used),
        "rope_of": tuple(used.index(kind) for kind in kinds),
        "logit_softcap": config.final_logit_softcapping,
    }


def _gemma(config: Any) -> Differences:
    if getattr(config, "use_bidirectional_attention", False):
        raise UserError("use_bidirectional_attention is set: such a model writes no text")
    return {
        **_attention_bias(config),
        "norms": "around",
        "norm_offset": 1.0,
        "wide_norm": True,
        "scale": config.query_pre_attn_scalar**-0.5,
        "embedding_scale": config.hidden_size**0.5,
        "windows": _windows_by_type(config),
    }


def _phi3(config: Any) -> Differences:
    return {
        "fused": True,
        "windows": _same_window(config),
        "ropes": (dict(config.rope_parameters),),
    }


def _olmo2(config: Any) -> Differences:
    return {**_attention_bias(config), "qk_norm": True, "norms": "after", "wide_norm": True}


def _granite(config: Any) -> Differences:
    return {
        **_llama(config),
        "scale": float(config.attention_multiplier),
        "embedding_scale": float(config.embedding_multiplier),
        "residual_scale": float(config.residual_multiplier),
        "logit_scale": 1.0 / config.logits_scaling,
    }


def _smollm3(config: Any) -> Differences:
    rotates = config.no_rope_layers  # 1 where a layer does rotate
    windows = _windows_by_type(config) if config.use_sliding_window else ()
    return {
        **_llama(config),
        "rope_of": tuple(0 if each else None for each in rotates),
        **({"windows": windows} if windows else {}),
    }


FAMILIES = {
    "llama": Family("LlamaForCausalLM", _llama),
    "mistral": Family("MistralForCausalLM", _mistral),
    "ministral": Family("MinistralForCausalLM", _ministral),  # a Mistral with layer_types, too
    "qwen2": Family("Qwen2ForCausalLM", _qwen2),
    "qwen3": Family("Qwen3ForCausalLM", _qwen3),
    "gemma2": Family("Gemma2ForCausalLM", _gemma2, "hidden_activation"),
    "gemma3_text": Family("Gemma3ForCausalLM", _gemma3, "hidden_activation"),
    "phi3": Family("Phi3ForCausalLM", _phi3),
    "olmo2": Family("Olmo2ForCausalLM", _olmo2),
    "granite": Family("GraniteForCausalLM", _granite),
    "smollm3": Family("SmolLM3ForCausalLM", _smollm3),
    "mixtral": Family("MixtralForCausalLM", _mixtral),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", _qwen3_moe),
}
"""Supported `model_type`s."""


def differences(config: Any) -> Differences:
    """What sets a model with this config apart from a Llama of its sizes. Raises UserError."""
    if config.model_type not in FAMILIES:
        raise UserError(
            f"model_type is '{config.model_type}': only {', '.join(FAMILIES)} are known"
        )
    family = FAMILIES[config.model_type]
    activation = getattr(config, family.activation)
    if activation not in ACTIVATIONS:
        raise UserError(
            f"{family.activation} is '{activation}': only {', '.join(ACTIVATIONS)} are supported"
        )
    found: Differences = {
        "ropes": (_rope(config.rope_parameters),),
        "activation": ACTIVATIONS[activation],
    }
    return found | family.differences(config)


def _rope(parameters: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Rotary settings, but for those that have no effect."""
    rope = {key: value for key, value in parameters.items() if key not in without}
    if rope.get("rope_type", "default") == "default":
        rope.pop("partial_rotary_factor", None)  # only the scaled kinds, and Phi, obey it
    return rope


def _attention_bias(config: Any) -> Differences:
    bias = bool(getattr(config, "attention_bias", False))
    return {"qkv_bias": bias, "out_bias": bias}


def _same_window(config: Any) -> tuple[int | None, ...]:
    window: int | None = config.sliding_window
    return (window,) * int(config.num_hidden_layers)


def _windows_by_type(config: Any) -> tuple[int | None, ...]:
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    odd = set(kinds) - {"full_attention", "sliding_attention"}
    if odd:
        raise UserError(f"layers of type {', '.join(sorted(odd))} are not supported")
    if window is None and "sliding_attention" in kinds:
        raise UserError("layer_types has sliding_attention, but there is no sliding_window")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
