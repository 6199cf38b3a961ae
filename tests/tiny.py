"""Tiny random models of every family, as transformers writes them, and what transformers says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

VOCAB = 61
LAYERS = 4

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}


def _rope(kind: str, **more: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0, **more}}


_LLAMA3 = _rope(
    "llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
_ALTERNATING = ["sliding_attention", "full_attention"] * (LAYERS // 2)
_GEMMA: dict[str, Any] = {
    "head_dim": 16,
    "query_pre_attn_scalar": 20,
    "sliding_window": 5,
    "tie_word_embeddings": True,
}
_LONGROPE = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "short_factor": [1.0, 1.1, 1.3],
        "long_factor": [1.0, 2.0, 4.0],
        "original_max_position_embeddings": 64,
    },
    "original_max_position_embeddings": 64,
}
CONFIGS: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "vicuna": (LlamaConfig, {"num_key_value_heads": 4}),
    "smollm": (LlamaConfig, {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "biased": (LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "wide-heads": (LlamaConfig, {"head_dim": 16}),
    "llama3": (LlamaConfig, _LLAMA3),
    "linear": (LlamaConfig, _rope("linear")),
    "yarn": (LlamaConfig, _rope("yarn", original_max_position_embeddings=64)),
    "dynamic": (LlamaConfig, {**_rope("dynamic"), "max_position_embeddings": 16}),
    "mistral": (MistralConfig, {"sliding_window": 6}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen2-sliding": (
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    ),
    "qwen3": (Qwen3Config, {"head_dim": 16}),
    "gemma2": (Gemma2Config, {**_GEMMA, "attn_logit_softcapping": 2.0}),
    "gemma3": (Gemma3TextConfig, {**_GEMMA, "layer_types": _ALTERNATING}),
    "phi3": (Phi3Config, {"pad_token_id": 0}),
    "phi4-mini": (Phi3Config, {"pad_token_id": 0, "sliding_window": 7, **_LONGROPE}),
    "olmo2": (Olmo2Config, {}),
    "granite": (
        GraniteConfig,
        {
            "attention_multiplier": 0.3,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.6,
            "logits_scaling": 4.0,
        },
    ),
    "mixtral": (MixtralConfig, {"num_local_experts": 6, "num_experts_per_tok": 2}),
    "qwen3-moe": (
        Qwen3MoeConfig,
        {
            "head_dim": 16,
            "num_experts": 10,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
            "mlp_only_layers": [2],
        },
    ),
    "smollm3": (SmolLM3Config, {"no_rope_layer_interval": 2, "pad_token_id": 0}),
}


def make(kind: str, folder: Path, seed: int = 0, **changes: Any) -> Any:
    """Save a model of this kind to `folder` and return it, in float32."""
    config_class, own = CONFIGS[kind]
    build: Any = AutoModelForCausalLM.from_config
    model = build(config_class(**{**SIZES, **own, **changes}))
    random = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=random) * 0.2
        parameter.data.copy_(1 + noise if "norm" in name else noise)
    model.eval()
    model.save_pretrained(folder)
    return model


def name_words(folder: Path, template: str = "") -> None:
    """Give the model in a folder a tokenizer: its words are w0, w1 and so on."""
    words = {f"w{number}": number for number in range(VOCAB)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    build: Any = PreTrainedTokenizerFast
    tokenizer = build(tokenizer_object=backend, unk_token="w0")
    tokenizer.chat_template = template or None
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def logits(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """[tokens, vocabulary], all in one pass."""
    out: torch.Tensor = model(torch.tensor([list(tokens)])).logits[0]
    return out


@torch.no_grad()
def last_logits(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """[vocabulary] after the last token. Dynamic scaling is run token by token, which is how a
    text is decoded: in one pass transformers takes other frequencies for the whole of it."""
    if model.config.rope_parameters.get("rope_type") != "dynamic":
        return logits(model, tokens)[-1]
    past = None
    for token in tokens:
        out = model(torch.tensor([[token]]), past_key_values=past, use_cache=True)
        past = out.past_key_values
    row: torch.Tensor = out.logits[0, -1]
    return row
