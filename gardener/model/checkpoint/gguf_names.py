"""The tensors of GGUF files, by the names that they have in checkpoints of the hub.

One row of `LAYOUTS` for each architecture. Names are those of `gguf.TensorNameMap`; what a
converter changed in the numbers (`convert_hf_to_gguf.py` of llama.cpp) is undone when they are read
(`gguf_tensors.py`), so that nobody else knows of it.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from gardener.errors import UserError

_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}

ROPE_TENSORS = frozenset(
    {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
)
"""They are settings of the rotary embedding, not weights: see `gguf_rope.py`."""

_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_FOUR_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_LINEAR = {**_ATTENTION, **_MLP}
_PLAIN = {**_ATTENTION, **_MLP, **_NORMS}
_MIXTRAL = {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
    "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
    "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
}
_QWEN_EXPERTS = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
}
_ONE_EXPERT = {f"ffn_{n}.{{}}": _MIXTRAL[f"ffn_{n}_exps"] for n in ("gate", "down", "up")}
"""In files of early Mixtral, each expert is a tensor."""

_WITHOUT_EFFECT = re.compile(r"blk\.\d+\.attn_rot_embd(\.weight)?")
"""Frequencies of the rotary embedding, in old files. They follow from its base."""

_LAYER = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)")
_EXPERT = re.compile(r"(.+)\.(\d+)")


@dataclass(frozen=True)
class Layout:
    """How the files of one architecture are laid out.

    layers    names within a layer, here and on the hub; {} stands for the number of an expert,
              whose tensors lie in one with an axis more
    permuted  rows of q and k are interleaved, as the rotary embedding of llama.cpp wants them
    shifted   norms are stored with one added
    biases    which of the layers' tensors may have a bias
    """

    layers: Mapping[str, str]
    biases: Collection[str] = ()
    permuted: bool = False
    shifted: bool = False


LAYOUTS = {
    "llama": Layout({**_PLAIN, **_MIXTRAL, **_ONE_EXPERT}, _LINEAR, permuted=True),
    "qwen2": Layout(_PLAIN, ("attn_q", "attn_k", "attn_v")),
    "qwen3": Layout({**_PLAIN, **_HEAD_NORMS}, _ATTENTION),
    "qwen3moe": Layout({**_ATTENTION, **_NORMS, **_HEAD_NORMS, **_QWEN_EXPERTS}, _ATTENTION),
    "gemma2": Layout({**_ATTENTION, **_MLP, **_FOUR_NORMS}, shifted=True),
    "gemma3": Layout({**_ATTENTION, **_MLP, **_FOUR_NORMS, **_HEAD_NORMS}, shifted=True),
    "phi3": Layout(
        {
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
            **_NORMS,
        }
    ),
    "olmo2": Layout(
        {
            **_ATTENTION,
            **_MLP,
            **_HEAD_NORMS,
            "post_attention_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        }
    ),
    "granite": Layout(_PLAIN, _LINEAR, permuted=True),
    "smollm3": Layout(_PLAIN, _LINEAR, permuted=True),
}
"""By `general.architecture`."""


@dataclass(frozen=True)
class Part:
    """One tensor of a checkpoint, within a stored one. `expert`: its place along the first axis;
    None: all of it. `heads`: which heads interleave its rows, q or k; empty: they are in order.
    `shifted`: one was added to it."""

    name: str
    expert: int | None = None
    heads: str = ""
    shifted: bool = False


def parts(architecture: str, stored: str, shape: tuple[int, ...]) -> Iterator[Part]:
    """What a stored tensor of this shape is made of; nothing, if it is without effect. Raises
    UserError for one that is not known."""
    layout = LAYOUTS[architecture]
    bare, _, kind = stored.rpartition(".")
    layer = _LAYER.fullmatch(stored)
    if bare in _TOP and kind == "weight":
        yield Part(f"{_TOP[bare]}.weight", shifted=layout.shifted and bare == "output_norm")
    elif _WITHOUT_EFFECT.fullmatch(stored):
        return
    elif layer:
        yield from _of_layer(layout, layer, shape)
    else:
        raise _unknown(stored)


def _of_layer(layout: Layout, layer: re.Match[str], shape: tuple[int, ...]) -> Iterator[Part]:
    number, within, kind = layer.groups()
    expert = _EXPERT.fullmatch(within)
    known = layout.layers.get(f"{expert[1]}.{{}}" if expert else within)
    if known is None or (kind == "bias" and within not in layout.biases):
        raise _unknown(layer[0])
    name = f"model.layers.{number}.{known}.{kind}"
    if expert:
        yield Part(name.format(expert[2]))
    elif "{}" in known:
        for place in range(shape[0]):
            yield Part(name.format(place), expert=place)
    else:
        interleaved = layout.permuted and within in ("attn_q", "attn_k")
        yield Part(
            name,
            heads=within[-1] if interleaved else "",
            shifted=layout.shifted and within.endswith("norm"),
        )


def _unknown(stored: str) -> UserError:
    return UserError(f"its tensor {stored} is not known, so its text would not be the model's own")
