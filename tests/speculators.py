"""EAGLE-3 heads in the form of `speculators`, small and random, and what they should give.

`Reference` is written from the published description alone (EAGLE-3: Li et al. 2025; the flags:
`Eagle3SpeculatorConfig`), a whole text at once and without any cache. It shares no code with what
it checks.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH, INNER, HEADS, GROUPS, SIZE, VOCAB, DRAFT = 32, 40, 4, 2, 16, 61, 30
EPS, THETA = 1e-5, 10000.0


def layer_config(**more: Any) -> dict[str, Any]:
    """`transformer_layer_config`, with the keys that published heads have."""
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": SIZE,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "max_position_embeddings": 256,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": 1,
        "num_key_value_heads": GROUPS,
        "pretraining_tp": 1,
        "rms_norm_eps": EPS,
        "rope_scaling": None,
        "rope_theta": THETA,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": VOCAB,
    } | more


def config(layer: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The keys of RedHatAI/Llama-3.1-8B-Instruct-speculator.eagle3 and its like."""
    return {
        "architectures": ["Eagle3Speculator"],
        "auto_map": {"": "eagle3.Eagle3SpeculatorConfig"},
        "draft_vocab_size": DRAFT,
        "eagle_aux_hidden_state_layer_ids": None,
        "has_no_defaults_at_init": False,
        "norm_before_residual": True,
        "speculators_config": {
            "algorithm": "eagle3",
            "default_proposal_method": "greedy",
            "proposal_methods": [
                {
                    "accept_tolerance": 0.0,
                    "proposal_type": "greedy",
                    "speculative_tokens": 3,
                    "verifier_accept_k": 1,
                }
            ],
            "verifier": {"architectures": ["LlamaForCausalLM"], "name_or_path": "someone/model"},
        },
        "speculators_model_type": "eagle3",
        "speculators_version": "0.1.0.dev14",
        "target_hidden_size": None,
        "torch_dtype": "bfloat16",
        "transformer_layer_config": layer_config(**(layer or {})),
        "transformers_version": "4.55.0",
    } | more


def tensors(config: dict[str, Any], taps: int = 3, seed: int = 4) -> dict[str, Tensor]:
    """Names and shapes, as `Eagle3DraftModel` saves them."""
    layer = config["transformer_layer_config"]
    p, queries, keys = "layers.0", HEADS * SIZE, GROUPS * SIZE
    shapes = {
        "embed_tokens.weight": (VOCAB, WIDTH),
        "fc.weight": (WIDTH, taps * WIDTH),
        "lm_head.weight": (DRAFT, WIDTH),
        "norm.weight": (WIDTH,),
        f"{p}.self_attn.q_proj.weight": (queries, 2 * WIDTH),
        f"{p}.self_attn.k_proj.weight": (keys, 2 * WIDTH),
        f"{p}.self_attn.v_proj.weight": (keys, 2 * WIDTH),
        f"{p}.self_attn.o_proj.weight": (WIDTH, queries),
        f"{p}.mlp.gate_proj.weight": (INNER, WIDTH),
        f"{p}.mlp.up_proj.weight": (INNER, WIDTH),
        f"{p}.mlp.down_proj.weight": (WIDTH, INNER),
        f"{p}.hidden_norm.weight": (WIDTH,),
        f"{p}.input_layernorm.weight": (WIDTH,),
        f"{p}.post_attention_layernorm.weight": (WIDTH,),
    }
    if layer["attention_bias"]:
        sizes = {"q": queries, "k": keys, "v": keys, "o": WIDTH}
        shapes |= {f"{p}.self_attn.{n}_proj.bias": (size,) for n, size in sizes.items()}
    if layer["mlp_bias"]:
        sizes = {"gate": INNER, "up": INNER, "down": WIDTH}
        shapes |= {f"{p}.mlp.{n}_proj.bias": (size,) for n, size in sizes.items()}
    if layer["model_type"] == "qwen3":
        shapes |= {f"{p}.self_attn.{n}_norm.weight": (SIZE,) for n in "qk"}
    if config.get("norm_before_fc"):
        shapes["input_norm.weight"] = (taps * WIDTH,)
    if config.get("fc_norm"):
        shapes |= {f"fc_norm.{k}.weight": (WIDTH,) for k in range(taps)}
    source = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=source) * 0.3
        made[name] = 1 + noise if "norm" in name else noise
    kept = torch.randperm(VOCAB, generator=source)[:DRAFT].sort().values
    chosen = torch.zeros(VOCAB, dtype=torch.bool)
    chosen[kept] = True
    return made | {"d2t": kept - torch.arange(DRAFT), "t2d": chosen}


class Reference:
    """Drafts a chain after a text: row i stands for token i+1 and the target's features of token i;
    rows of drafted tokens get what the row before gave."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.config, self.layer, self.t = config, config["transformer_layer_config"], tensors

    def laws(self, text: Sequence[int], features: Tensor, drafted: Sequence[int]) -> Tensor:
        """Probabilities [1 + drafted, draft vocabulary] of what follows the text, then each of the
        drafted tokens. features: [text - 1, taps * width]."""
        rows = list(self._fused(features))
        said = []
        for count in range(len(drafted) + 1):
            tokens = [*text[1:], *drafted[:count]]
            out = self._layer(tokens, torch.stack(rows))[-1]
            normed = self._norm(out, "norm")
            said.append(torch.softmax(self.t["lm_head.weight"] @ normed, -1))
            rows.append(normed if self.config.get("norm_output") else out)
        return torch.stack(said)

    def _fused(self, features: Tensor) -> Tensor:
        if self.config.get("norm_before_fc"):
            features = self._norm(features, "input_norm")
        if self.config.get("fc_norm"):
            parts = enumerate(features.chunk(features.shape[-1] // WIDTH, -1))
            features = torch.cat([self._norm(part, f"fc_norm.{k}") for k, part in parts], -1)
        return features @ self.t["fc.weight"].T

    def _layer(self, tokens: Sequence[int], g: Tensor) -> Tensor:
        """[rows, width]: causal, all rows anew."""
        embedded = self._norm(
            self.t["embed_tokens.weight"][list(tokens)], "layers.0.input_layernorm"
        )
        normed = self._norm(g, "layers.0.hidden_norm")
        residual = normed if self.config["norm_before_residual"] else g
        x = residual + self._attention(torch.cat((embedded, normed), -1))
        inner = self._norm(x, "layers.0.post_attention_layernorm")
        gated = F.silu(self._linear(inner, "mlp.gate")) * self._linear(inner, "mlp.up")
        return x + self._linear(gated, "mlp.down")

    def _attention(self, x: Tensor) -> Tensor:
        q, k, v = (self._linear(x, f"self_attn.{n}").view(len(x), -1, SIZE) for n in "qkv")
        if self.layer["model_type"] == "qwen3":
            q = self._norm(q, "layers.0.self_attn.q_norm")
            k = self._norm(k, "layers.0.self_attn.k_norm")
        q, k = self._rotated(q), self._rotated(k)
        k, v = (part.repeat_interleave(HEADS // GROUPS, 1) for part in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / SIZE**0.5
        later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        odds = torch.softmax(scores.masked_fill(later, -torch.inf), -1)
        return self._linear(torch.einsum("hqk,khd->qhd", odds, v).flatten(1), "self_attn.o")

    def _rotated(self, x: Tensor) -> Tensor:
        """Pairs of numbers half a head apart, as complex numbers; the first row is at place 1."""
        places = torch.arange(1, len(x) + 1, dtype=torch.float)
        angles = torch.outer(places, THETA ** -(torch.arange(0, SIZE, 2) / SIZE))
        turned = torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones(()), angles)[:, None]
        return torch.cat((turned.real, turned.imag), -1)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        weight = self.t[f"layers.0.{name}_proj.weight"]
        return F.linear(x, weight, self.t.get(f"layers.0.{name}_proj.bias"))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * self.t[f"{name}.weight"]
