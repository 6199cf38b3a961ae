"""Read a checkpoint: only the tensors that are needed, one layer in memory at a time.

Safetensors (one file, or several with an index), `pytorch_model.bin` (the same; `weights_only`,
never a pickle with code) and GGUF (`gguf_tensors.py`). Where a folder has several of them, the one
that transformers takes. Names are those of `LlamaForCausalLM`; a checkpoint that leaves the
`model.` prefix away reads the same. Names, sizes and samples of safetensors and GGUF are read
without torch: a holder needs no more before it dials.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from gardener.errors import LocalError, UserError, reason
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.config import part_of
from gardener.model.checkpoint.folders import read_json, refuse_pointer
from gardener.model.checkpoint.gguf_tensors import (
    INDEX,
    GGUFFile,
    Index,
    Stored,
    read_index,
)
from gardener.model.checkpoint.notes import names_in
from gardener.model.checkpoint.quantised import Quantised, quantised
from gardener.model.checkpoint.slices import EmbeddingAndHead, Slice
from gardener.model.checkpoint.weight_files import (
    BinFile,
    SafetensorsFile,
    WeightFile,
    torch_load,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from gardener.model.checkpoint.grouped_parts import Layout
    from gardener.model.checkpoint.table import Table
    from gardener.model.kernels.grouped import Grouped

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
NORM = "model.norm.weight"

WEIGHTS = tuple(
    file
    for single in ("model.safetensors", "pytorch_model.bin")
    for file in (single, f"{single}.index.json")
)
"""Files that hold all weights, or say which file holds which. The first one that is there is taken,
and no other, as transformers does it."""

_OF_EXPERTS = {
    ".block_sparse_moe.": ".mlp.",
    ".w1.": ".gate_proj.",
    ".w3.": ".up_proj.",
    ".w2.": ".down_proj.",
}
"""What Mixtral calls them, and others."""

_MIXTRAL = re.compile("|".join(map(re.escape, _OF_EXPERTS)))


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is: the file, the name it has there, its shape and its size in bytes."""

    file: Path
    stored: str
    shape: tuple[int, ...]
    nbytes: int


class Checkpoint:
    """The tensors of a model folder, by canonical name. Nothing is read until it is asked for.

    Files stay mapped until `release`; a tensor that was read and not copied keeps its own map.
    """

    def __init__(self, folder: Path, dtype: "torch.dtype | None" = None) -> None:
        """`dtype`: of what is dequantised; None: float32. Raises UserError if there are no weights
        in the folder."""
        self.folder, self._dtype = folder, dtype
        self.gguf = read_index(folder) if (folder / INDEX).exists() else None
        """Where the tensors are if they lie in GGUF files."""
        found = _weight_map(folder) if self.gguf is None else _places(folder, self.gguf)
        self._files = {canonical(name): (file, name) for name, file in found.items()}
        self._open: dict[Path, WeightFile] = {}
        self.reads: Callable[[str], None] = lambda name: None
        """Told the name of every tensor that has been read."""

    def names(self) -> list[str]:
        """Canonical names of all tensors, sorted."""
        return sorted(self._files)

    def info(self, name: str) -> TensorInfo:
        """Shape and size, without reading the data."""
        file, stored = self._find(name)
        shape, nbytes = self._file(file).info(stored)
        return TensorInfo(file, stored, shape, nbytes)

    def how_quantised(self) -> Quantised | None:
        """What the folder says of it (`quantised.py`), which its weights must say, too; those of a
        GGUF file are as they came. Raises UserError where the two differ."""
        said = quantised(self.folder)
        if self.gguf is not None:
            return said
        files = {file for file, _ in self._files.values()}
        # Quantised weights are in one file: of many, each would have to be opened for nothing.
        noted = self._file(*files).quantised if len(files) == 1 else None
        if noted != (said and said.name):
            raise UserError(
                f"{self.folder}: its weights are stored as {noted or 'floats'}, and config.json "
                f"says {said.name if said else 'nothing of it'}: split the model anew"
            )
        return said

    def has(self, name: str) -> bool:
        return name in self._files

    def head(self, tied: bool) -> str:
        """The name of the output matrix, see `output_matrix`."""
        return output_matrix(self._files.keys(), tied)

    @property
    def whole(self) -> bool:
        """Whether all files are here: not where only the layers of a slice were downloaded."""
        return all(file.exists() for file in {file for file, _ in self._files.values()})

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> "Tensor":
        """A tensor in floats, as it is stored and mapped from the file: copy or convert what is to
        stay. One that is quantised in the file is dequantised.

        Raises UserError if it is missing, has another shape than the one expected, or holds
        anything but floats of 16 bits or more: such would need scales.
        """
        from gardener.model.finite import check_floats

        tensor = self.raw(name, shape)
        check_floats(name, tensor)
        return tensor

    def raw(self, name: str, shape: tuple[int, ...] | None = None) -> "Tensor":
        """The same of any dtype."""
        file, stored = self._find(name)
        tensor = self._file(file).read(stored)
        _check_shape(name, file, tuple(tensor.shape), shape)
        self.reads(name)
        return tensor

    def grouped(
        self, name: str, quant: str, shape: tuple[int, int] | None = None
    ) -> "Grouped | None":
        """A matrix [outputs, inputs] just as it is quantised in the file, for `quant` (a kind in
        `quants.GROUPED`); None where it is stored in floats, or in a way that `Grouped` weights
        cannot say. What has more bits in the file than `quant` keeps them, and so does what has
        fewer.

        Raises UserError if it is missing, has another shape than the one expected, or scales that
        are no numbers.
        """
        from gardener.model.finite import check_finite

        file, stored = self._find(name)
        found = self._file(file).grouped(stored, quant)
        if found is None:
            return None
        _check_shape(name, file, found.shape, shape)
        for part in (found.scales, found.minima):
            if part is not None:
                check_finite(name, part)
        self.reads(name)
        return found

    def layout(self, name: str, quant: str) -> "Layout | None":
        """Of what `grouped` would give, known without reading it."""
        file, stored = self._find(name)
        return self._file(file).layout(stored, quant)

    def table(self, name: str, shape: tuple[int, int]) -> "Table":
        """A matrix of which rows are asked for; it stays mapped when all else is released. Raises
        UserError."""
        file, stored = self._find(name)
        _check_shape(name, file, self.info(name).shape, shape)
        return self._file(file).table(stored)

    def sample(self, name: str) -> bytes:
        """Some of the bytes of a tensor, as they are stored."""
        file, stored = self._find(name)
        return self._file(file).sample(stored)

    def stored(self, name: str) -> "tuple[Stored, np.ndarray[Any, np.dtype[np.uint8]]]":
        """Of a tensor in a GGUF file: how it is stored, and its bytes, mapped [rows, bytes]."""
        file = self._file(self._find(name)[0])
        if not isinstance(file, GGUFFile):
            raise LocalError(f"{name} is not in a GGUF file")
        return file.stored(name), file.raw(file.stored(name))

    def release(self) -> None:
        """Let go of the mapped files, and with them of the pages that were read."""
        self._open.clear()

    def _find(self, name: str) -> tuple[Path, str]:
        if name not in self._files:
            raise missing(name, self.folder)
        return self._files[name]

    def _file(self, path: Path) -> WeightFile:
        if path not in self._open:
            self._open[path] = self._opened(path)
        return self._open[path]

    def _opened(self, path: Path) -> WeightFile:
        if self.gguf is not None:
            return GGUFFile(path, self.gguf, self._dtype)
        return SafetensorsFile(path) if path.suffix == ".safetensors" else BinFile(path)


def _check_shape(
    name: str, file: Path, found: tuple[int, ...], expected: tuple[int, ...] | None
) -> None:
    if expected is not None and found != expected:
        raise UserError(f"{name} in {file} has shape {found}, config.json says {expected}")


def missing(name: str, folder: Path) -> UserError:
    """What to say of a tensor that is not in a checkpoint."""
    why = ", and tie_word_embeddings is false" if name == HEAD else ""
    return UserError(f"the tensor {name} is missing from {folder}{why}")


def output_matrix(names: Collection[str], tied: bool) -> str:
    """Which of the tensors of a whole checkpoint, or of its last slice, the output matrix is.

    lm_head.weight wherever there is one, whatever the config says of `tie_word_embeddings`
    (`tied`): so does transformers, and so it must be asked for where there is none and the two are
    not tied.
    """
    return EMBEDDING if tied and HEAD not in names else HEAD


def canonical(name: str) -> str:
    """The name as `LlamaForCausalLM` has it, with the prefix `model.` on all but the head, and as
    `Qwen3MoeForCausalLM` has those of experts."""
    name = _MIXTRAL.sub(lambda found: _OF_EXPERTS[found[0]], name)
    if name.startswith(("model.", "lm_head.")):
        return name
    return f"model.{name}"


def needed(weight_map: dict[str, str], held: Slice | EmbeddingAndHead, tied: bool) -> set[str]:
    """Which of the files in an index hold tensors of this slice. `tied`: as the config says."""
    files = {canonical(name): file for name, file in weight_map.items()}
    shared = output_matrix(files.keys(), tied) == EMBEDDING
    return {file for name, file in files.items() if held.holds(name, shared)}


def end_tensors(held: Slice, head: str) -> list[str]:
    """The tensors that a slice needs besides its layers; `head`: the name of the output matrix."""
    names = [EMBEDDING] if held.is_first else []
    if held.is_last:
        names += [NORM, head]
    return names


def fingerprint(folder: Path) -> str:
    """`structure:content`, for `cards.same_model`.

    structure  over what the config says and the names of the tensors
    content    over two samples of each tensor, as stored; empty where some files are not here

    A folder written by `split` carries the fingerprint of its source. That of quantised weights
    begins with how they are quantised.
    """
    part = part_of(folder)
    if part is not None:
        return part.fingerprint
    checkpoint = Checkpoint(folder)
    facts = Architecture.read(folder).facts()
    names = [name for name in checkpoint.names() if "rotary_emb" not in name]
    structure = hashlib.sha256(json.dumps([facts, names], sort_keys=True).encode())
    content = _content(checkpoint, names) if checkpoint.whole else ""
    how = quantised(folder)
    return f"{how.mark if how else ''}{structure.hexdigest()[:16]}:{content}"


def _content(checkpoint: Checkpoint, names: list[str]) -> str:
    total = hashlib.sha256()
    for name in names:
        total.update(checkpoint.sample(name))
    checkpoint.release()
    return total.hexdigest()[:16]


def _weight_map(folder: Path) -> dict[str, Path]:
    """Stored name of each tensor, and its file."""
    file = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if file is None:
        raise UserError(
            f"there are no weights in {folder}: expected {', '.join(WEIGHTS)} or a .gguf file, "
            "which is given itself"
        )
    if file.suffix != ".json":
        return dict.fromkeys(_names_in(file), file)
    entries = read_json(file).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{file} has no weight_map")
    return {str(name): _inside(folder, str(part)) for name, part in entries.items()}


def _places(folder: Path, index: Index) -> dict[str, Path]:
    """The same for tensors in GGUF files."""
    return {name: folder / stored.file for name, stored in index.tensors.items()}


def _inside(folder: Path, file: str) -> Path:
    """An index comes from outside: it must not name files elsewhere."""
    if Path(file).name != file:
        raise UserError(f"the index in {folder} names a file outside of it: {file}")
    return folder / file


def _names_in(path: Path) -> Iterator[str]:
    if path.suffix != ".safetensors":
        yield from torch_load(path)
        return
    refuse_pointer(path)
    try:
        with safe_open(path, framework="np") as handle:
            header = dict.fromkeys(handle.keys()) | {"__metadata__": handle.metadata()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    yield from names_in(path, header)
