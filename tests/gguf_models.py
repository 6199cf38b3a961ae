"""Tiny models as GGUF files, written as the converters of llama.cpp do it.

The names are those of the `gguf` package's own table (`TensorNameMap`), not ours.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import gguf_metadata
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import AutoModelForCausalLM, PretrainedConfig

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
"""Of most of these models."""

ARCHITECTURES = {
    "mixtral": "llama",
    "qwen3_moe": "qwen3moe",
    "gemma3_text": "gemma3",
}
"""What transformers calls otherwise."""

PERMUTED = ("llama", "granite", "smollm3")

_SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where float16 scales are in a block of the types that the package cannot quantise."""


@dataclass
class Written:
    """A file, and the model whose weights are what it holds, dequantised: `values`."""

    path: Path
    model: Any
    metadata: dict[str, Any]
    tensors: dict[str, tuple[np.ndarray[Any, Any], Type]] = field(default_factory=dict)
    values: dict[str, torch.Tensor] = field(default_factory=dict)


def make(
    path: Path, config: PretrainedConfig, kind: str = "Q8_0", seed: int = 0, **metadata: Any
) -> Written:
    """A random model of this config, and its file. `kind`: of the matrices; norms are F32.
    `metadata` is added to what the config says, without the architecture in front."""
    tokenizer = gguf_metadata.byte_level("qwen2" if "qwen" in config.model_type else "llama-bpe")[1]
    config.vocab_size = len(tokenizer["tokenizer.ggml.tokens"])
    build: Any = AutoModelForCausalLM.from_config
    model = build(config)
    architecture = ARCHITECTURES.get(config.model_type, config.model_type)
    own = {f"{architecture}.{key}": value for key, value in _settings(config).items()}
    own |= {f"{architecture}.{key}": value for key, value in metadata.items()}
    made = Written(path, model.eval(), {**tokenizer, **own, "general.architecture": architecture})
    chance = np.random.default_rng(seed)
    values = {
        name: _fill(made, name, tuple(tensor.shape), kind, chance)
        for name, tensor in _checkpoint(model)
    }
    shared = "lm_head.weight" not in values
    assert shared == bool(config.tie_word_embeddings)
    made.model = type(model).from_pretrained(None, config=config, state_dict=values).eval()
    made.values = values
    write(path, made.metadata, made.tensors)
    return made


def alter(written: Written, path: Path, *without: str, **changes: Any) -> Path:
    """Another file: without some tensors and keys, with other ones. A change is a key's value, or
    the numbers of a tensor; of what belongs to the architecture, `arch__name`, with __ for dots."""
    metadata = {key: value for key, value in written.metadata.items() if key not in without}
    tensors = {key: value for key, value in written.tensors.items() if key not in without}
    architecture = metadata["general.architecture"]
    for name, value in changes.items():
        key = name.replace("__", ".").replace("arch.", f"{architecture}.", 1)
        if isinstance(value, np.ndarray):
            tensors[key] = value, Type.F32
        else:
            metadata[key] = value
    write(path, metadata, tensors)
    return path


def write(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[np.ndarray[Any, Any], Type]],
) -> None:
    """A GGUF file of these key-values and raw tensors."""
    writer = gguf.GGUFWriter(path, str(metadata["general.architecture"]))
    for key, value in metadata.items():
        if key != "general.architecture":
            _add(writer, key, value)
    for name, (raw, kind) in tensors.items():
        writer.add_tensor(name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    adders = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}
    getattr(writer, f"add_{adders[type(value)]}")(key, value)


def _settings(config: PretrainedConfig) -> dict[str, Any]:
    """The key-values of a config that all converters write."""
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    return {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": float(rope["rope_theta"]),
        "rope.dimension_count": int(head_dim * rope.get("partial_rotary_factor", 1.0)),
    }


def _checkpoint(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of a model under their names in checkpoints of the hub."""
    tied = model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if "experts.gate_up_proj" in name or "experts.down_proj" in name:
            yield from _experts(name, tensor, model.config.model_type)
        elif model.config.model_type == "mixtral" and ".mlp.gate." in name:
            yield name.replace(".mlp.", ".block_sparse_moe."), tensor
        elif not (tied and name == "lm_head.weight"):
            yield name, tensor


def _experts(
    name: str, tensor: torch.Tensor, model_type: str
) -> Iterator[tuple[str, torch.Tensor]]:
    """One tensor for each expert, out of the one that transformers computes with."""
    mixtral = model_type == "mixtral"
    prefix, _, which = name.rpartition(".")
    if mixtral:
        prefix = prefix.replace(".mlp.", ".block_sparse_moe.")
    names = {"gate": "w1", "up": "w3", "down": "w2"} if mixtral else {}
    for number, expert in enumerate(tensor):
        parts = zip(("gate", "up"), expert.chunk(2), strict=True)
        for part, value in [("down", expert)] if which == "down_proj" else parts:
            yield f"{prefix}.{number}.{names.get(part, f'{part}_proj')}.weight", value


def _fill(
    made: Written, name: str, shape: tuple[int, ...], kind: str, chance: np.random.Generator
) -> torch.Tensor:
    """Draw a tensor, put it into the file, and return what it is dequantised."""
    architecture = made.metadata["general.architecture"]
    norm = "norm" in name
    drawn = (chance.standard_normal(shape) * 0.2).astype(np.float32)
    shifted = norm and architecture.startswith("gemma")
    if norm or len(shape) == 1:
        raw, stored = drawn + np.float32(norm), Type.F32
        value = raw - 1 if shifted else raw
    else:
        stored = Type[kind]
        raw, value = _quantised(drawn, stored, chance)
    rows = _permutation(architecture, name, made.model.config, len(raw))
    _put(made, architecture, name, raw if rows is None else raw[rows], stored)
    return torch.from_numpy(np.ascontiguousarray(value))


def _quantised(
    drawn: np.ndarray[Any, Any], kind: Type, chance: np.random.Generator
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    if kind.name in _SCALES:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = chance.integers(0, 256, (drawn.size // block, size), dtype=np.uint8)
        for at in _SCALES[kind.name]:
            scales = (chance.uniform(0.5, 1.0, len(blocks)) * 4e-4).astype(np.float16)
            blocks[:, at : at + 2] = scales[:, None].view(np.uint8)
        raw = blocks.reshape(len(drawn), -1)
    else:
        raw = gguf.quants.quantize(drawn, kind)
    return raw, gguf.quants.dequantize(raw, kind)


def _permutation(
    architecture: str, name: str, config: PretrainedConfig, rows: int
) -> np.ndarray[Any, Any] | None:
    """The order of rows that `LlamaModel.permute` of the converter makes."""
    found = re.search(r"self_attn\.([qk])_proj\.", name)
    if architecture not in PERMUTED or found is None:
        return None
    heads = config.num_attention_heads if found[1] == "q" else config.num_key_value_heads
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)


def _put(
    made: Written, architecture: str, name: str, raw: np.ndarray[Any, Any], kind: Type
) -> None:
    names = gguf.get_tensor_name_map(
        next(arch for arch, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture),
        made.model.config.num_hidden_layers,
    )
    expert = re.search(r"\.experts\.\d+\.", name)
    known = name if expert is None else name.replace(expert[0], ".experts.")
    if "block_sparse_moe.experts" in known:  # as the converter calls them when they are merged
        known = known.replace("model.layers", "layers").replace("block_sparse_moe", "feed_forward")
    target = names.get_name(known, (".weight", ".bias"))
    assert target is not None, name
    if expert is not None:
        raw = raw[None]
        if target in made.tensors:
            raw = np.concatenate((made.tensors[target][0], raw))
    made.tensors[target] = raw, kind
