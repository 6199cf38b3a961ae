"""A GGUF file as a model folder: config and tokenizer, made once, and links to the file itself.

Such a *light folder* is kept in the cache. Nothing is converted: the weights stay in the file, and
`gguf_tensors.py` reads those that are asked for.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gardener.errors import UserError
from gardener.model.checkpoint.folders import write_json
from gardener.model.checkpoint.gguf_config import Config, config_of
from gardener.model.checkpoint.gguf_files import GGUFModel, files_of, read_model
from gardener.model.checkpoint.gguf_names import ROPE_TENSORS, parts
from gardener.model.checkpoint.gguf_tensors import FileState, Stored, write_index
from gardener.model.checkpoint.gguf_tokenizer import write_tokenizer
from gardener.model.checkpoint.gguf_types import AS_STORED, NEEDS_GGUF, unknown_types
from gardener.runtime.files import whole_folder
from gardener.runtime.wording import Say

WAY_OUT = "take another file of this model, or the folder that it was made from"


def write_light_folder(gguf: Path, target: Path, say: Say, way_out: str) -> None:
    """Read what a file says, and write it as `target`. Raises UserError, which names the file, for
    one that cannot be read, or holds anything that is not known; `way_out` is for where `target`
    cannot be written."""
    say(f"reading what {gguf.name} says (once)")
    files = files_of(gguf)
    model = _readable(files)
    config, tensors = _described(gguf, model)
    with whole_folder(target, way_out) as folder:
        try:
            write_tokenizer(model.metadata, folder)
        except UserError as error:
            raise UserError(f"{gguf}: {error}") from error
        write_json(folder / "config.json", config)
        states = {}
        for file in files:
            (folder / file.name).symlink_to(file.absolute())
            states[file.name] = FileState(file.stat().st_size, file.stat().st_mtime_ns)
        write_index(folder, states, tensors)


def _described(gguf: Path, model: GGUFModel) -> tuple[Config, dict[str, Stored]]:
    """The config, and where each tensor is. Raises UserError."""
    try:
        config = config_of(model.metadata, model.tensors, _rope_factors(model))
        tensors = _placed(model, config)
        _check_layers(model, int(config["num_hidden_layers"]))
        return config, tensors
    except UserError as error:
        raise UserError(f"{gguf} cannot be used: {error}: {WAY_OUT}") from error


def _readable(files: list[Path]) -> GGUFModel:
    """Raises UserError also for types of tensors that are not supported, and without the package
    that knows them."""
    try:
        model = read_model(files)
        unknown = unknown_types(tensor.type for tensor in model.tensors.values())
    except ImportError as error:
        raise UserError(NEEDS_GGUF) from error
    if unknown:
        raise UserError(
            f"{files[0]} has tensors of type {', '.join(unknown)}, which cannot be computed with: "
            f"{WAY_OUT}"
        )
    return model


def _rope_factors(model: GGUFModel) -> dict[str, list[float]]:
    """The tensors that are settings. They are small: [head_dim / 2]."""
    found = {}
    for name in ROPE_TENSORS & model.tensors.keys():
        tensor = model.tensors[name]
        if tensor.type != "F32" or len(tensor.shape) != 1:
            raise UserError(f"its {name} is of type {tensor.type} and shape {tensor.shape}")
        raw = np.fromfile(model.files[name], np.float32, tensor.shape[0], offset=tensor.offset)
        found[name.removesuffix(".weight")] = raw.tolist()
    return found


def _placed(model: GGUFModel, config: Config) -> dict[str, Stored]:
    """Where each tensor of the checkpoint is. Raises UserError for one that is not known, or is
    there twice."""
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"], "": 0}
    found: dict[str, Stored] = {}
    for name in (name for name in model.tensors if name not in ROPE_TENSORS):
        for part, stored in _stored(model, name, heads):
            if part in found:
                raise UserError(f"it has {part} twice, as {name} and otherwise")
            found[part] = stored
    return found


def _stored(model: GGUFModel, name: str, heads: Mapping[str, int]) -> Iterator[tuple[str, Stored]]:
    """What one tensor holds, by the names of the checkpoint; `heads`: how many there are."""
    tensor = model.tensors[name]
    architecture = str(model.metadata["general.architecture"])
    for part in parts(architecture, name, tensor.shape):
        shape, offset, nbytes = tensor.shape, tensor.offset, tensor.nbytes
        if part.expert is not None:
            nbytes //= shape[0]
            shape, offset = shape[1:], offset + part.expert * nbytes
        uneven = part.heads and shape[0] % (2 * heads[part.heads])
        within_blocks = part.heads and len(shape) == 1 and tensor.type not in AS_STORED
        if uneven or within_blocks or (part.shifted and tensor.type != "F32"):
            raise UserError(f"its {name} has the shape {shape} and type {tensor.type}")
        file, shift = model.files[name].name, 1.0 if part.shifted else 0.0
        interleaved = heads[part.heads]
        yield part.name, Stored(file, tensor.type, shape, offset, nbytes, interleaved, shift)


def _check_layers(model: GGUFModel, layers: int) -> None:
    """Raise UserError unless all layers have the same tensors, and there is none beyond them."""
    within: dict[str, set[str]] = {str(layer): set() for layer in range(layers)}
    for name in model.tensors:
        head, _, rest = name.partition(".")
        layer, _, tensor = rest.partition(".")
        if head != "blk":
            continue
        if layer not in within:
            raise UserError(f"it has a tensor {name}, and by its metadata {layers} layers")
        within[layer].add(tensor)
    for layer, found in within.items():
        lacking = sorted(set().union(*within.values()) - found)
        if lacking or not found:
            raise UserError(f"it has no tensor blk.{layer}.{(lacking or ['*'])[0]}")
