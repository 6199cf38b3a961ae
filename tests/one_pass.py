"""One-pass heads (DFlash, DSpark), small and random, and what they should give.

`Reference` is written from the published descriptions alone (arXiv 2602.06036, 2607.05147), each
block with its whole context anew. It shares no code with what it checks.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH, INNER, HEADS, GROUPS, SIZE, VOCAB, RANK, MASK = 32, 40, 4, 2, 16, 61, 5, 59
EPS, THETA = 1e-6, 10000.0
IDS = [1, 3, 5]


def dflash(**more: Any) -> dict[str, Any]:
    """The keys of z-lab/Qwen3-8B-DFlash-b16 and its like."""
    return {
        "architectures": ["DFlashDraftModel"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": {"AutoModel": "dflash.DFlashDraftModel"},
        "block_size": 4,
        "bos_token_id": 1,
        "dflash_config": {"mask_token_id": MASK, "target_layer_ids": IDS},
        "dtype": "bfloat16",
        "eos_token_id": 2,
        "head_dim": SIZE,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "layer_types": ["full_attention", "full_attention"],
        "max_position_embeddings": 256,
        "max_window_layers": 2,
        "model_type": "qwen3",
        "num_attention_heads": HEADS,
        "num_hidden_layers": 2,
        "num_key_value_heads": GROUPS,
        "num_target_layers": 8,
        "rms_norm_eps": EPS,
        "rope_scaling": None,
        "rope_theta": THETA,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "transformers_version": "4.57.3",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCAB,
    } | more


def dspark(**more: Any) -> dict[str, Any]:
    """The keys of deepseek-ai/dspark_qwen3_4b_block7 and its like."""
    flat = dflash()
    del flat["dflash_config"]
    return (
        flat
        | {
            "architectures": ["Qwen3DSparkModel"],
            "confidence_head_with_markov": True,
            "enable_confidence_head": True,
            "markov_head_type": "vanilla",
            "markov_rank": RANK,
            "mask_token_id": MASK,
            "num_anchors": 512,
            "target_layer_ids": IDS,
        }
        | more
    )


def specforge() -> dict[str, Any]:
    """DSpark as SpecForge writes it: a DFlash class, and all else in `dflash_config`."""
    more = {
        "projector_type": "dspark",
        "markov_rank": RANK,
        "markov_head_type": "vanilla",
        "confidence_head_alpha": 1.0,
        "enable_confidence_head": True,
        "confidence_head_with_markov": True,
    }
    flat = dflash()
    return flat | {"dflash_config": flat["dflash_config"] | more}


def tensors(config: dict[str, Any], own: bool = False, seed: int = 6) -> dict[str, Tensor]:
    """Names and shapes of these; `own`: with an embedding and an output matrix."""
    config = config | config.get("dflash_config", {})
    shapes: dict[str, tuple[int, ...]] = {
        "fc.weight": (WIDTH, len(IDS) * WIDTH),
        "hidden_norm.weight": (WIDTH,),
        "norm.weight": (WIDTH,),
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"layers.{index}"
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (HEADS * SIZE, WIDTH),
            f"{layer}.self_attn.k_proj.weight": (GROUPS * SIZE, WIDTH),
            f"{layer}.self_attn.v_proj.weight": (GROUPS * SIZE, WIDTH),
            f"{layer}.self_attn.o_proj.weight": (WIDTH, HEADS * SIZE),
            f"{layer}.self_attn.q_norm.weight": (SIZE,),
            f"{layer}.self_attn.k_norm.weight": (SIZE,),
            f"{layer}.mlp.gate_proj.weight": (INNER, WIDTH),
            f"{layer}.mlp.up_proj.weight": (INNER, WIDTH),
            f"{layer}.mlp.down_proj.weight": (WIDTH, INNER),
            f"{layer}.input_layernorm.weight": (WIDTH,),
            f"{layer}.post_attention_layernorm.weight": (WIDTH,),
        }
        if config["attention_bias"]:
            sizes = {"q": HEADS * SIZE, "k": GROUPS * SIZE, "v": GROUPS * SIZE, "o": WIDTH}
            shapes |= {f"{layer}.self_attn.{n}_proj.bias": (size,) for n, size in sizes.items()}
    if config.get("markov_rank"):
        shapes["markov_head.markov_w1.weight"] = (VOCAB, RANK)
        shapes["markov_head.markov_w2.weight"] = (VOCAB, RANK)
    if config.get("enable_confidence_head"):
        shapes["confidence_head.proj.weight"] = (1, WIDTH + RANK)
        shapes["confidence_head.proj.bias"] = (1,)
    if own:
        shapes["embed_tokens.weight"] = shapes["lm_head.weight"] = (VOCAB, WIDTH)
    source = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=source) * (1.0 if "markov" in name else 0.3)
        made[name] = 1 + noise if "norm" in name else noise
    return made


class Reference:
    """A whole block behind a text. table, matrix: the target's, for heads without their own."""

    def __init__(
        self, config: dict[str, Any], tensors: dict[str, Tensor], table: Tensor, matrix: Tensor
    ) -> None:
        self.config, self.t = config | config.get("dflash_config", {}), tensors
        names = (self.config["architectures"][0], self.config.get("projector_type", ""))
        self.follows = any("dspark" in name.lower() for name in names)
        self.table = tensors.get("embed_tokens.weight", table)
        self.matrix = tensors.get("lm_head.weight", matrix)

    def laws(self, text: Sequence[int], features: Tensor, chain: Sequence[int]) -> Tensor:
        """Probabilities of what follows the text, then each token of a chain below it, as far as
        the block reaches: [1 + chain, vocab] at most. features: [text - 1, taps * width]."""
        size, last = self.config["block_size"], len(text) - 1
        context = self._norm(features @ self.t["fc.weight"].T, "hidden_norm")
        x = self.table[[text[-1], *[MASK] * (size - 1)]]
        for index in range(self.config["num_hidden_layers"]):
            x = self._layer(f"layers.{index}", x, context, torch.arange(last + size))
        logits = self._norm(x, "norm") @ self.matrix.T
        if not self.follows:
            logits = logits[1:]  # a place says what is there, and at the first is the anchor
        logits = logits[: len(chain) + 1]
        if self.config.get("markov_rank"):
            before = self.t["markov_head.markov_w1.weight"][[text[-1], *chain]]
            logits = logits + before[: len(logits)] @ self.t["markov_head.markov_w2.weight"].T
        return torch.softmax(logits, -1)

    def _layer(self, name: str, x: Tensor, context: Tensor, places: Tensor) -> Tensor:
        normed = self._norm(x, f"{name}.input_layernorm")
        seen = torch.cat((context, normed))
        q = self._norm(self._heads(normed, f"{name}.self_attn.q"), f"{name}.self_attn.q_norm")
        k = self._norm(self._heads(seen, f"{name}.self_attn.k"), f"{name}.self_attn.k_norm")
        v = self._heads(seen, f"{name}.self_attn.v")
        q, k = self._rotated(q, places[len(context) :]), self._rotated(k, places)
        k, v = (part.repeat_interleave(HEADS // GROUPS, 1) for part in (k, v))
        odds = torch.softmax(torch.einsum("qhd,khd->hqk", q, k) / SIZE**0.5, -1)
        x = x + self._linear(
            torch.einsum("hqk,khd->qhd", odds, v).flatten(1), f"{name}.self_attn.o"
        )
        inner = self._norm(x, f"{name}.post_attention_layernorm")
        gate, up = (self._linear(inner, f"{name}.mlp.{n}") for n in ("gate", "up"))
        return x + self._linear(F.silu(gate) * up, f"{name}.mlp.down")

    def _heads(self, x: Tensor, name: str) -> Tensor:
        return self._linear(x, name).view(len(x), -1, SIZE)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.t[f"{name}_proj.weight"], self.t.get(f"{name}_proj.bias"))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * self.t[f"{name}.weight"]

    def _rotated(self, x: Tensor, places: Tensor) -> Tensor:
        angles = torch.outer(places.float(), THETA ** -(torch.arange(0, SIZE, 2) / SIZE))
        turned = torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones(()), angles)[:, None]
        return torch.cat((turned.real, turned.imag), -1)
