"""Random models as GGUF files, for Gardener and for llama.cpp: the same weights as in a folder with
the same seed, quantised."""

import logging
import math
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from torch import Tensor

from gardener.errors import UserError
from gardener.model.checkpoint.gguf_vocabulary import TokenKind
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD, NORM
from gardener.model.random.pool import Parts, Pool
from gardener.model.random.shapes import matrices, norms
from gardener.model.random.tokenizer import END, MERGE, tokens_for
from gardener.runtime.files import check_room, whole_file

_SLACK = 64 << 20  # bytes for the tokenizer

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_ENDS = {EMBEDDING: "token_embd.weight", HEAD: "output.weight", NORM: "output_norm.weight"}


def write_gguf(config: Mapping[str, Any], out: Path, kind: str, *, seed: int = 0) -> None:
    """A random model of the family llama, whose matrices are of this type of GGML. Raises UserError
    where `out` is there, or the disk is too full."""
    if out.exists():
        raise UserError(f"{out} is there already: give --out a file that does not exist yet")
    own = GGMLQuantizationType[kind]
    block, size = GGML_QUANT_SIZES[own]
    shapes = {name: shape for name, shape, _ in matrices(config)}
    nbytes = {name: math.prod(shape) // block * size for name, shape in shapes.items()}
    check_room(out.parent, sum(nbytes.values()) + _SLACK)
    logging.getLogger("gguf.gguf_writer").setLevel(logging.WARNING)  # it tells of each step
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as draft:
        writer = GGUFWriter(draft, "llama")
        _metadata(writer, config)
        plain = _plain(config)
        for name, values in plain.items():
            writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
        for name, (outputs, inputs) in shapes.items():
            raw = (outputs, inputs // block * size)
            writer.add_tensor_info(_name(name), raw, np.dtype(np.uint8), nbytes[name], own)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for values in plain.values():
            writer.write_tensor_data(values)
        pool = cache(partial(_pool, seed, own, block))
        for name, shape, std in matrices(config):
            writer.write_tensor_data(_drawn(pool(std), name, shape, config))
        writer.close()


def _name(name: str) -> str:
    if name in _ENDS:
        return _ENDS[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def _pool(seed: int, kind: GGMLQuantizationType, block: int, std: float) -> Pool:
    def form(numbers: Tensor) -> Parts:
        return {"": torch.from_numpy(quantize(numbers.numpy(), kind).view(np.uint8))}

    return Pool(std, block, seed, form)


def _drawn(
    pool: Pool, name: str, shape: tuple[int, int], config: Mapping[str, Any]
) -> np.ndarray[Any, Any]:
    """The bytes of a matrix, its rows as converters order them (`gguf_tensors.py`)."""
    raw = torch.cat([parts[""] for _, parts in pool.cut(name, shape)])
    heads = {"q": "num_attention_heads", "k": "num_key_value_heads"}
    for letter, key in heads.items():
        if f"self_attn.{letter}_proj" in name:
            raw = raw.view(config[key], 2, -1, raw.shape[1]).transpose(1, 2).reshape(raw.shape)
    return raw.numpy()


def _plain(config: Mapping[str, Any]) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """What stays in floats."""
    ones = np.ones(config["hidden_size"], np.float32)
    found = {_name(name): ones for name in norms(config)}
    if scaling := config.get("rope_scaling"):
        found["rope_freqs.weight"] = _divisors(config, scaling)
    return found


def _divisors(
    config: Mapping[str, Any], scaling: Mapping[str, float]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Of the frequencies of Llama 3, as `LlamaModel.generate_extra_tensors` of the converter has
    them."""
    size = _head_dim(config)
    waves = 2 * math.pi * config["rope_theta"] ** (np.arange(0, size, 2) / size)
    trained = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = np.clip((trained / waves - low) / (high - low), 0.0, 1.0)
    divisors: np.ndarray[Any, Any] = 1 / ((1 - smooth) / scaling["factor"] + smooth)
    return divisors.astype(np.float32)


def _head_dim(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim", config["hidden_size"] // config["num_attention_heads"]))


def _metadata(writer: GGUFWriter, config: Mapping[str, Any]) -> None:
    head_dim, tokens = _head_dim(config), tokens_for(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(len(tokens))
    end = tokens.index(END)
    kinds = [TokenKind.CONTROL if n == end else TokenKind.NORMAL for n in range(len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_token_merges([" ".join(MERGE)])
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)
