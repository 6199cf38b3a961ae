"""Shapes of well-known Llamas, and folders of random weights that have them.

Speed does not depend on what the weights are, so a few layers of a model that nobody can have here
do as well as the model itself.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file


@dataclass(frozen=True)
class Shape:
    """Of a Llama. `tied`: the head multiplies with the embedding."""

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    vocab: int
    context: int
    tied: bool = False

    @property
    def kv_width(self) -> int:
        """Numbers of a key, or of a value, in all heads."""
        return self.width // self.heads * self.kv_heads

    @property
    def layer_weights(self) -> int:
        """Weights of one layer's matrices."""
        return self.width * (2 * self.width + 2 * self.kv_width + 3 * self.inner)

    @property
    def head_weights(self) -> int:
        """Weights of the output matrix."""
        return self.vocab * self.width

    def layer_matrices(self) -> Iterator[tuple[str, str, int, int]]:
        """Of one layer: the names in a GGUF file and in a folder, rows and columns."""
        attention, feed_forward = "self_attn", "mlp"
        yield "attn_q", f"{attention}.q_proj", self.width, self.width
        yield "attn_output", f"{attention}.o_proj", self.width, self.width
        yield "attn_k", f"{attention}.k_proj", self.kv_width, self.width
        yield "attn_v", f"{attention}.v_proj", self.kv_width, self.width
        yield "ffn_gate", f"{feed_forward}.gate_proj", self.inner, self.width
        yield "ffn_up", f"{feed_forward}.up_proj", self.inner, self.width
        yield "ffn_down", f"{feed_forward}.down_proj", self.width, self.inner

    def with_layers(self, layers: int) -> "Shape":
        """The same with another number of layers."""
        return replace(self, layers=layers)


SHAPES = {
    "smollm2-135m": Shape(30, 576, 1536, 9, 3, 49152, 8192, tied=True),
    "llama-3.2-1b": Shape(16, 2048, 8192, 32, 8, 128256, 131072, tied=True),
    "llama-2-7b": Shape(32, 4096, 11008, 32, 32, 32000, 4096),
}


def write_folder(
    folder: Path, shape: Shape, context: int, layers: Sequence[int] | None = None
) -> None:
    """A random model in bfloat16, without a tokenizer, that takes texts of `context` tokens.

    All layers have the same weights, each in a file of its own: a stage reads all of them.
    `layers`: those that are written; None: all.
    """
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocab,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    chance = torch.Generator().manual_seed(1)

    def drawn(rows: int, columns: int) -> torch.Tensor:
        weight = torch.empty(rows, columns, dtype=torch.bfloat16)
        return weight.normal_(0, columns**-0.5, generator=chance)

    ends = {
        "model.embed_tokens.weight": drawn(shape.vocab, shape.width),
        "model.norm.weight": torch.ones(shape.width, dtype=torch.bfloat16),
    }
    if not shape.tied:
        ends["lm_head.weight"] = drawn(shape.vocab, shape.width)
    layer = {
        f"{name}.weight": drawn(rows, columns) for _, name, rows, columns in shape.layer_matrices()
    }
    for norm in ("input_layernorm", "post_attention_layernorm"):
        layer[f"{norm}.weight"] = torch.ones(shape.width, dtype=torch.bfloat16)
    files = {"ends.safetensors": ends}
    for number in range(shape.layers) if layers is None else layers:
        files[f"layer-{number}.safetensors"] = {
            f"model.layers.{number}.{name}": weight for name, weight in layer.items()
        }
    for file, weights in files.items():
        save_file(weights, folder / file, {"format": "pt"})
    index = {name: file for file, weights in files.items() for name in weights}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
