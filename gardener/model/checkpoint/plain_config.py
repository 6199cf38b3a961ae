"""Read a `config.json` without transformers, whose import takes seconds.

That can be done for a plain one: every field in it is known, and none that matters is missing. In
any other case transformers is asked, which has defaults for what is missing, old names for what was
renamed, and errors for what makes no sense.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct, ValidationError, convert

Size: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Number: TypeAlias = Annotated[float, Meta(ge=0, le=1e30)]
Some: TypeAlias = Annotated[float, Meta(gt=0, le=1e30)]
Token: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)] | None
DType: TypeAlias = Literal["float32", "bfloat16", "float16"] | None


class _Default(Struct, forbid_unknown_fields=True, tag_field="rope_type", tag="default"):
    rope_theta: Some


class _Llama3(Struct, forbid_unknown_fields=True, tag_field="rope_type", tag="llama3"):
    factor: Some
    low_freq_factor: Some
    high_freq_factor: Some
    original_max_position_embeddings: Size


class _Llama3Whole(_Llama3, forbid_unknown_fields=True, tag_field="rope_type", tag="llama3"):
    rope_theta: Some


class _Factors(Struct, forbid_unknown_fields=True, tag_field="rope_type", tag="factors"):
    """Of GGUF files, see `rotary.SCALINGS`. Transformers does not know it, and warns."""

    factors: list[Some]
    rope_theta: Some


class _Plain(Struct, forbid_unknown_fields=True, kw_only=True):
    """Fields of all families. Those with a default may be missing: they do not count."""

    model_type: Literal["llama", "mistral", "qwen2", "qwen3", "olmo2", "granite"]
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size
    vocab_size: Size
    max_position_embeddings: Size
    rms_norm_eps: Number
    hidden_act: Literal["silu"]
    tie_word_embeddings: bool

    rope_theta: Some | None = None
    rope_scaling: _Llama3 | None = None
    rope_parameters: _Default | _Llama3Whole | _Factors | None = None

    architectures: list[str] | None = None
    attention_dropout: Literal[0] | float = 0.0
    bos_token_id: Token = None
    chunk_size_feed_forward: Literal[0] = 0
    dtype: DType = None
    eos_token_id: Token | list[int] = None
    gardener: dict[str, str | int] = {}
    id2label: dict[str, str] = {}
    initializer_range: Annotated[float, Meta(ge=0, le=1)] = 0.02
    is_encoder_decoder: Literal[False] = False
    label2id: dict[str, int] = {}
    output_attentions: Literal[False] = False
    output_hidden_states: Literal[False] = False
    pad_token_id: Token = None
    pretraining_tp: Literal[1] = 1
    problem_type: None = None
    return_dict: bool = True
    torch_dtype: DType = None
    transformers_version: str | None = None
    unk_token_id: Token = None
    use_cache: bool = True


class _Llama(_Plain, kw_only=True):
    head_dim: Size | None = None
    attention_bias: bool = False
    mlp_bias: bool = False


class _Mistral(_Plain, kw_only=True):
    head_dim: Size | None = None
    sliding_window: Size | None


class _Qwen2(_Plain, kw_only=True):
    use_sliding_window: Literal[False]
    sliding_window: Size | None = None
    max_window_layers: int = 0
    layer_types: list[Literal["full_attention"]] | None = None


class _Qwen3(_Qwen2, kw_only=True):
    head_dim: Size
    attention_bias: bool = False


class _Olmo2(_Plain, kw_only=True):
    attention_bias: bool = False


class _Granite(_Plain, kw_only=True):
    attention_bias: bool = False
    mlp_bias: bool = False
    embedding_multiplier: Number
    logits_scaling: Some
    residual_multiplier: Number
    attention_multiplier: Number


_FAMILIES: dict[str, type[_Plain]] = {
    "llama": _Llama,
    "mistral": _Mistral,
    "qwen2": _Qwen2,
    "qwen3": _Qwen3,
    "olmo2": _Olmo2,
    "granite": _Granite,
}


_FLOATS = ("rms_norm_eps", "initializer_range")
"""Fields that transformers wants with a decimal point."""


def plain_config(raw: Mapping[str, Any]) -> SimpleNamespace | None:
    """The attributes that matter here, as transformers would read them from a `config.json`; None
    where it has to be asked."""
    family = _FAMILIES.get(str(raw.get("model_type")))
    try:
        if family is None or not _sound(convert(raw, family)):
            return None
        if not all(isinstance(raw.get(key, 0.0), float) for key in _FLOATS):
            return None
    except ValidationError:
        return None
    rope = raw.get("rope_parameters")
    if rope is None:
        scaling = raw.get("rope_scaling") or {"rope_type": "default"}
        rope = {**scaling, "rope_theta": raw["rope_theta"]}
    qwen: dict[str, Any] = {"sliding_window": None} if issubclass(family, _Qwen2) else {}
    return SimpleNamespace(**{**raw, "rope_parameters": rope, **qwen})


def _sound(config: _Plain) -> bool:
    """Whether the sizes go together, and the rotary embedding is described once."""
    kinds = getattr(config, "layer_types", None)
    return (
        config.hidden_size % config.num_attention_heads == 0
        and (kinds is None or len(kinds) == config.num_hidden_layers)
        and (config.rope_theta is None) != (config.rope_parameters is None)
        and (config.rope_scaling is None or config.rope_parameters is None)
    )
