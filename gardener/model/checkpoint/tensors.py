"""Read a checkpoint: only the tensors that are needed, one layer in memory at a time.

Safetensors (one file, or several with an index) and `pytorch_model.bin` (the same; `weights_only`,
never a pickle with code). Names are those of `LlamaForCausalLM`; a checkpoint that leaves the
`model.` prefix away reads the same. Names, sizes and samples of safetensors are read without torch:
a holder needs no more before it dials.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

from safetensors import SafetensorError, safe_open

from gardener.errors import UserError, reason
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.config import part_of
from gardener.model.checkpoint.folders import read_json, refuse_pointer
from gardener.model.checkpoint.slices import EmbeddingAndHead, Slice

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
NORM = "model.norm.weight"

_SINGLE = ("model.safetensors", "pytorch_model.bin")
INDEXES = tuple(f"{name}.index.json" for name in _SINGLE)
"""Files that say which weight file holds which tensor."""

_OF_EXPERTS = {
    ".block_sparse_moe.": ".mlp.",
    ".w1.": ".gate_proj.",
    ".w3.": ".up_proj.",
    ".w2.": ".down_proj.",
}
"""What Mixtral calls them, and others."""

_MIXTRAL = re.compile("|".join(map(re.escape, _OF_EXPERTS)))

_SAMPLE = 512  # bytes of each tensor that go into the fingerprint, twice


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

    def __init__(self, folder: Path) -> None:
        """Raises UserError if there are no weights in the folder."""
        self.folder = folder
        self._files = {canonical(name): (file, name) for name, file in _weight_map(folder).items()}
        self._open: dict[Path, _File] = {}

    def names(self) -> list[str]:
        """Canonical names of all tensors, sorted."""
        return sorted(self._files)

    def info(self, name: str) -> TensorInfo:
        """Shape and size, without reading the data."""
        file, stored = self._find(name)
        shape, nbytes = self._file(file).info(stored)
        return TensorInfo(file, stored, shape, nbytes)

    def has(self, name: str) -> bool:
        return name in self._files

    @property
    def whole(self) -> bool:
        """Whether all files are here: not where only the layers of a slice were downloaded."""
        return all(file.exists() for file in {file for file, _ in self._files.values()})

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> "Tensor":
        """A tensor as it is stored, mapped from the file: copy or convert what is to stay.

        Raises UserError if it is missing, or has another shape than the one expected.
        """
        file, stored = self._find(name)
        tensor = self._file(file).read(stored)
        if shape is not None and tuple(tensor.shape) != shape:
            raise UserError(
                f"{name} in {file} has shape {tuple(tensor.shape)}, config.json says {shape}"
            )
        return tensor

    def sample(self, name: str) -> bytes:
        """Some of the bytes of a tensor, as they are stored."""
        file, stored = self._find(name)
        return self._file(file).sample(stored)

    def release(self) -> None:
        """Let go of the mapped files, and with them of the pages that were read."""
        self._open.clear()

    def _find(self, name: str) -> tuple[Path, str]:
        if name not in self._files:
            raise UserError(f"the tensor {name} is missing from {self.folder}")
        return self._files[name]

    def _file(self, path: Path) -> "_File":
        if path not in self._open:
            self._open[path] = _Safetensors(path) if path.suffix == ".safetensors" else _Bin(path)
        return self._open[path]


class _File(ABC):
    """One weight file, open."""

    @abstractmethod
    def info(self, name: str) -> tuple[tuple[int, ...], int]:
        """Shape and bytes."""

    @abstractmethod
    def read(self, name: str) -> "Tensor":
        """The whole tensor."""

    def sample(self, name: str) -> bytes:
        """Some of the bytes of a tensor: its first ones, and as many from the middle on."""
        import torch  # late, as below

        raw = self.read(name).contiguous().reshape(-1).view(torch.uint8)
        middle = len(raw) // 2
        return bytes(torch.cat((raw[:_SAMPLE], raw[middle : middle + _SAMPLE])).tolist())


class _Safetensors(_File):
    def __init__(self, path: Path) -> None:
        refuse_pointer(path)
        try:
            with safe_open(path, framework="np"):  # checks the header
                self._handle: Any = None
            with path.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                self._header: dict[str, Any] = json.loads(stream.read(size))
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read: {reason(error)}") from error
        self._path, self._data = path, 8 + size

    def info(self, name: str) -> tuple[tuple[int, ...], int]:
        first, end = self._entry(name)["data_offsets"]
        return tuple(self._entry(name)["shape"]), end - first

    def sample(self, name: str) -> bytes:
        # Read, not mapped: a page fault would bring in much more than the sample.
        first, end = self._entry(name)["data_offsets"]
        middle = first + (end - first) // 2
        with self._path.open("rb") as stream:
            stream.seek(self._data + first)
            start = stream.read(min(_SAMPLE, end - first))
            stream.seek(self._data + middle)
            return start + stream.read(min(_SAMPLE, end - middle))

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._header:
            raise UserError(f"{name} is not in {self._path}, where the index says it is")
        entry: dict[str, Any] = self._header[name]
        return entry

    def read(self, name: str) -> "Tensor":
        self._entry(name)
        try:
            self._handle = self._handle or safe_open(self._path, framework="pt")
            tensor: Tensor = self._handle.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{name} cannot be read from {self._path}: {error}") from error
        return tensor


class _Bin(_File):
    def __init__(self, path: Path) -> None:
        self._tensors = _torch_load(path)
        self._path = path

    def info(self, name: str) -> tuple[tuple[int, ...], int]:
        tensor = self.read(name)
        return tuple(tensor.shape), tensor.nbytes

    def read(self, name: str) -> "Tensor":
        if name not in self._tensors:
            raise UserError(f"{name} is not in {self._path}, where the index says it is")
        return self._tensors[name]


def canonical(name: str) -> str:
    """The name as `LlamaForCausalLM` has it, with the prefix `model.` on all but the head, and as
    `Qwen3MoeForCausalLM` has those of experts."""
    name = _MIXTRAL.sub(lambda found: _OF_EXPERTS[found[0]], name)
    if name.startswith(("model.", "lm_head.")):
        return name
    return f"model.{name}"


def needed(weight_map: dict[str, str], held: Slice | EmbeddingAndHead, tied: bool) -> set[str]:
    """Which of the files in an index hold tensors of this slice."""
    return {file for name, file in weight_map.items() if held.holds(canonical(name), tied)}


def end_tensors(held: Slice, tied: bool) -> list[str]:
    """The tensors that a slice needs besides its layers."""
    names = [EMBEDDING] if held.is_first else []
    if held.is_last:
        names += [NORM, EMBEDDING if tied else HEAD]
    return names


def fingerprint(folder: Path) -> str:
    """`structure:content`, for `cards.same_model`.

    structure  over what the config says and the names of the tensors
    content    over two samples of each tensor, as stored; empty where some files are not here

    A folder written by `split` carries the fingerprint of its source.
    """
    part = part_of(folder)
    if part is not None:
        return part.fingerprint
    checkpoint = Checkpoint(folder)
    facts = Architecture.read(folder).facts()
    names = [name for name in checkpoint.names() if "rotary_emb" not in name]
    structure = hashlib.sha256(json.dumps([facts, names], sort_keys=True).encode())
    content = _content(checkpoint, names) if checkpoint.whole else ""
    return f"{structure.hexdigest()[:16]}:{content}"


def _content(checkpoint: Checkpoint, names: list[str]) -> str:
    total = hashlib.sha256()
    for name in names:
        total.update(checkpoint.sample(name))
    checkpoint.release()
    return total.hexdigest()[:16]


def _weight_map(folder: Path) -> dict[str, Path]:
    """Stored name of each tensor, and its file."""
    for single, index in zip(_SINGLE, INDEXES, strict=True):
        if (folder / index).exists():
            entries = read_json(folder / index).get("weight_map")
            if not isinstance(entries, dict) or not entries:
                raise UserError(f"{folder / index} has no weight_map")
            return {str(name): _inside(folder, str(file)) for name, file in entries.items()}
        if (folder / single).exists():
            return dict.fromkeys(_names_in(folder / single), folder / single)
    raise UserError(
        f"there are no weights in {folder}: expected {', '.join(_SINGLE)} or one of their indexes"
    )


def _inside(folder: Path, file: str) -> Path:
    """An index comes from outside: it must not name files elsewhere."""
    if Path(file).name != file:
        raise UserError(f"the index in {folder} names a file outside of it: {file}")
    return folder / file


def _names_in(path: Path) -> Iterator[str]:
    if path.suffix != ".safetensors":
        yield from _torch_load(path)
        return
    refuse_pointer(path)
    try:
        with safe_open(path, framework="np") as handle:
            yield from handle.keys()
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error


def _torch_load(path: Path) -> "dict[str, Tensor]":
    """All tensors of a file, mapped where its format allows. Never runs code from the file."""
    refuse_pointer(path)
    import torch  # late: it takes a second, and safetensors can be looked at without

    try:
        # Files from before torch 1.6 are no archives and cannot be mapped.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:  # a damaged pickle ends in nearly any of them
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path} cannot be read: {line}") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path} does not hold tensors by name")
    tensors = {str(name): each for name, each in loaded.items() if isinstance(each, torch.Tensor)}
    for name, tensor in tensors.items():
        odd = tensor.is_nested or tensor.is_meta or tensor.is_quantized
        if odd or tensor.layout != torch.strided:
            raise UserError(f"{path} cannot be read: {name} is sparse, quantised or without values")
    return tensors
