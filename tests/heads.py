"""Draft heads as they are published, small and random, and what they should give: the plain way,
with everything computed anew each time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from gardener.decoding.tree import Guess, Opinion

EPS = 1e-5
THETA = 10000.0


def said(opinions: Sequence[Opinion]) -> list[tuple[Guess, ...]]:
    """What a drafter that has seen all it needs says of each path."""
    known = [opinion for opinion in opinions if opinion is not None]
    assert len(known) == len(opinions)
    return known


def eagle1_tensors(config: dict[str, Any], seed: int = 1) -> dict[str, Tensor]:
    """Names and shapes of EAGLE-Vicuna-7B-v1.3 and the like."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    size = width // heads
    keys = config.get("num_key_value_heads", heads) * size
    shapes = {
        "embed_tokens.weight": (config["vocab_size"], width),
        "fc.weight": (width, 2 * width),
        "layers.0.self_attn.q_proj.weight": (width, width),
        "layers.0.self_attn.k_proj.weight": (keys, width),
        "layers.0.self_attn.v_proj.weight": (keys, width),
        "layers.0.self_attn.o_proj.weight": (width, width),
        "layers.0.mlp.gate_proj.weight": (inner, width),
        "layers.0.mlp.up_proj.weight": (inner, width),
        "layers.0.mlp.down_proj.weight": (width, inner),
        "layers.0.post_attention_layernorm.weight": (width,),
    }
    if config.get("bias", True):
        shapes["fc.bias"] = (width,)
    return _random(shapes, seed)


def eagle3_tensors(
    config: dict[str, Any], taps: int, layer: str = "midlayer", seed: int = 2, lm_head: bool = True
) -> dict[str, Tensor]:
    """Names and shapes of EAGLE3-LLaMA3.1-Instruct-8B and the like."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    size = config.get("head_dim", width // config["num_attention_heads"])
    queries, keys = (config[f"num_{n}_heads"] * size for n in ("attention", "key_value"))
    more = config.get("induction_key_value_heads", 0) * size
    queries, keys = queries + more * (queries // keys), keys + more
    draft, vocab = config["draft_vocab_size"], config["vocab_size"]
    shapes = {
        "fc.weight": (width, taps * width),
        f"{layer}.self_attn.q_proj.weight": (queries, 2 * width),
        f"{layer}.self_attn.k_proj.weight": (keys, 2 * width),
        f"{layer}.self_attn.v_proj.weight": (keys, 2 * width),
        f"{layer}.self_attn.o_proj.weight": (width, queries),
        f"{layer}.mlp.gate_proj.weight": (inner, width),
        f"{layer}.mlp.up_proj.weight": (inner, width),
        f"{layer}.mlp.down_proj.weight": (width, inner),
        f"{layer}.hidden_norm.weight": (width,),
        f"{layer}.input_layernorm.weight": (width,),
        f"{layer}.post_attention_layernorm.weight": (width,),
        "norm.weight": (width,),
    }
    if lm_head:
        shapes["lm_head.weight"] = (draft, width)
    tensors = _random(shapes, seed)
    source = torch.Generator().manual_seed(seed)
    kept = torch.randperm(vocab, generator=source)[:draft].sort().values
    chosen = torch.zeros(vocab, dtype=torch.bool)
    chosen[kept] = True
    return tensors | {"d2t": kept - torch.arange(draft), "t2d": chosen}


def _random(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=source) * 0.2
        made[name] = 1 + noise if "norm" in name else noise
    return made


def config(vocab: int = 61, width: int = 32, **more: Any) -> dict[str, Any]:
    """A head's config for the models in `tiny`."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": width,
        "intermediate_size": 40,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "max_position_embeddings": 256,
        "vocab_size": vocab,
        "rms_norm_eps": EPS,
        "rope_theta": THETA,
        "hidden_act": "silu",
        "pad_token_id": 0,
    } | more


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], pickled: bool) -> Path:
    """A checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    return folder


class Row(NamedTuple):
    """x: what attention reads. g: the residual. before: what attention read in the row before, when
    this one was computed."""

    x: Tensor
    g: Tensor
    before: Tensor


class Plain:
    """A head without a cache: the output of the last row of a chain of rows, all computed anew."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor], table: Tensor) -> None:
        self.config, self.t = config, tensors
        self.table = tensors.get("embed_tokens.weight", table)
        self.layer = "layers.0" if "layers.0.mlp.up_proj.weight" in tensors else "midlayer"
        self.three = f"{self.layer}.hidden_norm.weight" in tensors

    def logits(self, out: Tensor, matrix: Tensor) -> Tensor:
        """Of one output; `matrix` is the target's."""
        if not self.three:
            return matrix @ out
        kept = self.t["d2t"] + torch.arange(len(self.t["d2t"]))
        return self.t.get("lm_head.weight", matrix[kept]) @ _norm(out, self.t["norm.weight"])

    def input(self, token: int, given: Tensor, true: bool, before: "Row | None") -> "Row":
        """What a row reads. `given`: the target's feature of the token before if `true`, else the
        output of that token's row, which is `before`."""
        embedded = self.table[token]
        if not self.three:
            x = self.t["fc.weight"] @ torch.cat((embedded, given))
            x = x + self.t["fc.bias"] if "fc.bias" in self.t else x
            return Row(x, x, torch.zeros_like(x))
        g = self.t["fc.weight"] @ given if true else given
        normed = _norm(embedded, self.t[f"{self.layer}.input_layernorm.weight"])
        x = torch.cat((normed, _norm(g, self.t[f"{self.layer}.hidden_norm.weight"])))
        return Row(x, g, torch.zeros_like(x) if before is None else before.x)

    def output(self, inputs: Sequence["Row"]) -> Tensor:
        """Of the last row of a chain."""
        heads = self.config["num_attention_heads"]
        size = self.config.get("head_dim", self.config["hidden_size"] // heads)
        group = heads // self.config.get("num_key_value_heads", heads)
        x, before = torch.stack([row.x for row in inputs]), torch.stack([r.before for r in inputs])
        q, k, v, handed = (
            (rows @ self.t[f"{self.layer}.self_attn.{n}_proj.weight"].T).view(len(x), -1, size)
            for rows, n in ((x, "q"), (x, "k"), (x, "v"), (before, "k"))
        )
        plain = k.shape[1] - self.config.get("induction_key_value_heads", 0)
        k = torch.cat((k[:, :plain], handed[:, plain:]), 1)
        at = torch.arange(len(x))
        q, k = _rotate(q, at), _rotate(k, at)
        seen = []
        for head in range(q.shape[1]):
            scores = k[:, head // group] @ q[-1, head] / size**0.5
            seen.append(torch.softmax(scores, 0) @ v[:, head // group])
        a = inputs[-1].g + self.t[f"{self.layer}.self_attn.o_proj.weight"] @ torch.cat(seen)
        x = _norm(a, self.t[f"{self.layer}.post_attention_layernorm.weight"])
        names = ("gate", "up", "down")
        gate, up, down = (self.t[f"{self.layer}.mlp.{n}_proj.weight"] for n in names)
        return a + down @ (F.silu(gate @ x) * (up @ x))


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean() + EPS).sqrt() * weight


def _rotate(x: Tensor, at: Tensor) -> Tensor:
    """[rows, heads, size] by position, as Llama does."""
    size = x.shape[-1]
    angles = at[:, None] / THETA ** (torch.arange(0, size, 2) / size)
    cos, sin = torch.cat((angles, angles), 1).cos(), torch.cat((angles, angles), 1).sin()
    low, high = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat((-high, low), -1) * sin[:, None]
