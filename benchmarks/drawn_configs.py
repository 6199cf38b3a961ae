"""Draw the `config.json` of a tiny model of a family, as people publish them and with odd fields.

Fields come from one pool for all families, so that each family meets those of the others: a Qwen2
config with `attention_bias`, a Llama config with `layer_types`. A field is absent, null or one of
its values. Rotary settings come under old and new names, and under both at once.
"""

import random
from typing import Any, TypeAlias

VOCAB = 61
ROWS = 24
"""Tokens of a text: more than the smallest windows and contexts that are drawn."""

Config: TypeAlias = dict[str, Any]

MODELS = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "ministral": "MinistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "granite": "GraniteForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
"""The families, and the class that each names."""

_ACTIVATIONS = (*("silu", "gelu_pytorch_tanh") * 4, "gelu", "relu", "swish", "gelu_new", "relu2")

_POOL: dict[str, tuple[Any, ...]] = {
    "attention_bias": (True, False),
    "mlp_bias": (True, False),
    "sliding_window": (3, 6, 200, None),
    "use_sliding_window": (True, False),
    "max_window_layers": (0, 1, 2, 28),
    "head_dim": (8, 16, 12, 16, 12, None),
    "query_pre_attn_scalar": (8, 20, 64),
    "attn_logit_softcapping": (2.0, 50.0, None),
    "final_logit_softcapping": (3.0, 30.0, None),
    "embedding_multiplier": (3.0, 12, 1.0),
    "attention_multiplier": (0.3, 0.0625, 1.0),
    "residual_multiplier": (0.6, 0.22, 1.0),
    "logits_scaling": (4.0, 8, 0.5),
    "no_rope_layer_interval": (2, 3, 4),
    "sliding_window_pattern": (2, 3, 6),
    "rope_local_base_freq": (100.0, 10000),
    "original_max_position_embeddings": (16, 64),
    "use_bidirectional_attention": (False, None, None, True),
    "resid_pdrop": (0.0, 0.1),
    "attention_dropout": (0.0, 0.1),
    "cache_implementation": ("hybrid",),
    "use_cache": (True, False),
    "use_qk_norm": (True,),
    "qk_layernorm": (False,),
    "logit_scale": (0.5,),
    "clip_qkv": (0.1, None),
    "pretraining_tp": (1, 2),
    "pad_token_id": (0, 1, None, -1),
    "num_labels": (2, 3),
    "torch_dtype": ("bfloat16", "float32"),
    "dtype": ("float16", None),
}
"""Beside sizes, layers' kinds and rotary settings. What has no effect anywhere is here too."""

_EXPERTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "mixtral": {
        "num_local_experts": (2, 5, 8),
        "num_experts_per_tok": (1, 2, 2, 9),
        "router_jitter_noise": (0.0, 0.1),
        "norm_topk_prob": (False,),
        "moe_intermediate_size": (24,),
    },
    "qwen3_moe": {
        "num_experts": (2, 5, 8, 0),
        "num_experts_per_tok": (1, 2, 2, 9),
        "norm_topk_prob": (True, False),
        "moe_intermediate_size": (24, 40),
        "decoder_sparse_step": (1, 2, 3),
        "mlp_only_layers": ([0], [1, 2], [], None),
        "shared_expert_intermediate_size": (24,),
    },
}
"""Fields of mixtures, which only mixtures have."""

_OWN: dict[str, tuple[str, ...]] = {
    "llama": ("attention_bias", "mlp_bias", "head_dim"),
    "mistral": ("sliding_window", "head_dim"),
    "ministral": ("sliding_window", "head_dim", "layer_types"),
    "qwen2": ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"),
    "qwen3": (
        *("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"),
        *("attention_bias", "head_dim"),
    ),
    "gemma2": (
        *("attention_bias", "head_dim", "sliding_window", "layer_types", "query_pre_attn_scalar"),
        *("attn_logit_softcapping", "final_logit_softcapping"),
    ),
    "gemma3_text": (
        *("attention_bias", "head_dim", "sliding_window", "layer_types", "query_pre_attn_scalar"),
        *("sliding_window_pattern", "rope_local_base_freq", "final_logit_softcapping"),
    ),
    "phi3": ("sliding_window", "original_max_position_embeddings", "partial_rotary_factor"),
    "olmo2": ("attention_bias",),
    "granite": (
        *("attention_bias", "mlp_bias", "embedding_multiplier", "attention_multiplier"),
        *("residual_multiplier", "logits_scaling"),
    ),
    "smollm3": (
        *("attention_bias", "mlp_bias", "use_sliding_window", "sliding_window", "layer_types"),
        *("no_rope_layers", "no_rope_layer_interval"),
    ),
    "mixtral": ("sliding_window", "head_dim"),
    "qwen3_moe": ("use_sliding_window", "sliding_window", "attention_bias", "head_dim"),
}
"""What each family is likely to have; other fields are seldom there."""

_SCALINGS: dict[str, Config] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "longrope": {"original_max_position_embeddings": 16},
    "mrope": {"mrope_section": [1, 1, 2]},
    "oak": {"factor": 2.0},
}
_NEVER_NULL = ("tie_word_embeddings", "num_key_value_heads", "head_dim")

_YARN: Config = {
    "attention_factor": 1.5,
    "beta_fast": 16.0,
    "beta_slow": 2.0,
    "mscale": 0.7,
    "mscale_all_dim": 1.0,
    "truncate": False,
}


def draw(family: str, seed: int) -> Config:
    """The config of a model of at most four layers, whose vocabulary is `VOCAB`."""
    chance = random.Random(f"{family} {seed}")
    config: Config = {
        "model_type": family,
        "architectures": [MODELS[family]],
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": chance.choice((2, 3, 4)),
        "num_attention_heads": 4,
        "bos_token_id": chance.choice((1, None)),
        "eos_token_id": chance.choice((2, [2, 3])),
        "pad_token_id": 0,
        "transformers_version": "4.46.0",
    }
    own = _OWN[family]
    for field, values in _POOL.items():
        if chance.random() < (0.6 if field in own else 0.12):
            config[field] = chance.choice(values)
    for field, values in _EXPERTS.get(family, {}).items():
        if chance.random() < 0.7:
            config[field] = chance.choice(values)
    if family in _EXPERTS:  # the default of 128 experts is no tiny model
        config.setdefault("num_local_experts" if family == "mixtral" else "num_experts", 4)
        config.setdefault("num_experts_per_tok", 2)
    _sizes(chance, config)
    _layers(chance, config, own)
    _rotary(chance, config)
    if chance.random() < 0.9:
        _mended(config)
    return config


def _mended(config: Config) -> None:
    """Take away what no model with it can be built of."""
    if "sliding_attention" in config.get("layer_types", ()):
        config["sliding_window"] = config.get("sliding_window") or 5
        config["use_sliding_window"] = True
    for field in _NEVER_NULL:
        if config.get(field, 0) is None:
            del config[field]
    if config.get("num_key_value_heads", 3) == 3:
        config["num_key_value_heads"] = 2
    if config["model_type"].endswith("istral"):  # with kinds of layers there is no default
        config.setdefault("head_dim", 8)


def _sizes(chance: random.Random, config: Config) -> None:
    """Those that may be absent or null; zero and fractions that no model has are left out."""
    _maybe(chance, config, "num_key_value_heads", (*(1, 2, 4) * 4, None, 3))
    _maybe(chance, config, "max_position_embeddings", (16, 64, 256, 256))
    _maybe(chance, config, "rms_norm_eps", (1e-5, 1e-6, 0.1))
    _maybe(chance, config, "tie_word_embeddings", (*(True, False) * 4, None))
    for field in ("hidden_act", "hidden_activation"):
        if config["model_type"].startswith("gemma") or field == "hidden_act":
            _maybe(chance, config, field, _ACTIVATIONS)


def _layers(chance: random.Random, config: Config, own: tuple[str, ...]) -> None:
    count = config["num_hidden_layers"]
    kinds = ["full_attention", "sliding_attention"]
    if chance.random() < (0.4 if "layer_types" in own else 0.15):
        config["layer_types"] = [chance.choice(kinds) for _ in range(count)]
        if chance.random() < 0.1:
            config["layer_types"][0] = chance.choice(("chunked_attention", "attention"))
        if chance.random() < 0.05:
            config["layer_types"].append("full_attention")
    if chance.random() < (0.4 if "no_rope_layers" in own else 0.1):
        config["no_rope_layers"] = [chance.choice((0, 1)) for _ in range(count)]


def _rotary(chance: random.Random, config: Config) -> None:
    """Under old names, new names, both or none."""
    if chance.random() < (0.3 if config["model_type"] == "phi3" else 0.1):
        config["partial_rotary_factor"] = chance.choice((0.5, 0.75, 1.0))
    form = chance.choice(("old", "old", "old", "new", "new", "both", "none"))
    if form in ("old", "both"):
        _maybe(chance, config, "rope_theta", (100.0, 10000, 10000.0))
        _maybe(chance, config, "rope_scaling", (_scaling(chance, config, old=True), None))
    if form in ("new", "both"):
        config["rope_parameters"] = _parameters(chance, config)


def _parameters(chance: random.Random, config: Config) -> Config:
    """By kind of layer in Gemma 3, where there are kinds; by chance in others."""
    nested = 0.9 if config["model_type"] == "gemma3_text" else 0.05
    if chance.random() > nested:
        return _scaling(chance, config, old=False)
    kinds = ("full_attention", "sliding_attention")
    return {kind: _scaling(chance, config, old=False) for kind in kinds}


def _scaling(chance: random.Random, config: Config, *, old: bool) -> Config:
    likely = "longrope" if config["model_type"] == "phi3" else "default"
    kind = chance.choice((*(likely,) * 5, *_SCALINGS))
    found: Config = {chance.choice(("type", "rope_type")) if old else "rope_type": kind}
    found |= _SCALINGS[kind]
    if not old and chance.random() < 0.9:
        found["rope_theta"] = chance.choice((100.0, 10000.0, 500000))
    if kind == "yarn":
        found |= {key: value for key, value in _YARN.items() if chance.random() < 0.3}
    if kind == "longrope":
        size = (config.get("head_dim") or 8) * config.get("partial_rotary_factor", 1.0)
        half = chance.choice((*(int(size) // 2,) * 9, 2))
        found["short_factor"] = [round(chance.uniform(1, 2), 2) for _ in range(half)]
        found["long_factor"] = [round(chance.uniform(1, 8), 2) for _ in range(half)]
        if chance.random() < 0.5:
            found["factor"] = 4.0
    if found.keys() & {"original_max_position_embeddings"} and chance.random() < 0.3:
        del found["original_max_position_embeddings"]
    if chance.random() < 0.1:
        found["partial_rotary_factor"] = 0.5
    return found


def _maybe(chance: random.Random, config: Config, field: str, values: tuple[Any, ...]) -> None:
    if chance.random() < 0.85:
        config[field] = chance.choice(values)
