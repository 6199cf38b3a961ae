"""The kinds of files that hold weights: safetensors, and what `torch.save` wrote."""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

from safetensors import SafetensorError, safe_open

from gardener.errors import UserError, reason
from gardener.model.checkpoint.folders import refuse_pointer
from gardener.model.checkpoint.notes import WHOLE, notes, parts_of

if TYPE_CHECKING:
    from torch import Tensor

    from gardener.model.checkpoint.grouped_parts import Layout
    from gardener.model.checkpoint.table import Table
    from gardener.model.kernels.grouped import Grouped

SAMPLE = 512
"""Bytes of each tensor that go into the fingerprint, twice."""


class WeightFile(ABC):
    """One weight file, open."""

    quantised: str | None = None
    """How its matrices are, as the file notes it (`Quantised.name`)."""

    @abstractmethod
    def info(self, name: str) -> tuple[tuple[int, ...], int]:
        """Shape and bytes."""

    @abstractmethod
    def read(self, name: str) -> "Tensor":
        """The whole tensor."""

    def grouped(self, name: str, quant: str) -> "Grouped | None":
        """The tensor as it is quantised in the file; None where it is not, or not so. See
        `Checkpoint.grouped`."""
        return None

    def layout(self, name: str, quant: str) -> "Layout | None":
        """Of what `grouped` would give, which is not read for it."""
        return None

    def table(self, name: str) -> "Table":
        """The tensor, for rows. Raises UserError if it is not of floats."""
        from gardener.model.checkpoint.table import FloatTable
        from gardener.model.finite import check_floats

        weights = self.read(name)
        check_floats(name, weights)
        return FloatTable(weights)

    def sample(self, name: str) -> bytes:
        """Some of the bytes of a tensor: its first ones, and as many from the middle on."""
        import torch  # late, as below

        raw = self.read(name).contiguous().reshape(-1).view(torch.uint8)
        middle = len(raw) // 2
        return bytes(torch.cat((raw[:SAMPLE], raw[middle : middle + SAMPLE])).tolist())


class SafetensorsFile(WeightFile):
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
        self._notes = notes(path, self._header)
        self.quantised = (self._header.get("__metadata__") or {}).get(WHOLE)
        """Of each tensor that is quantised."""

    def info(self, name: str) -> tuple[tuple[int, ...], int]:
        shape = tuple(self._entry(name)["shape"])
        note = self._notes.get(name)
        parts = [name] if note is None else parts_of(name, note).values()
        if note is not None:
            shape = (*shape[:-1], shape[-1] * 8 // note.bits)
        spans = [self._header[each]["data_offsets"] for each in parts]
        return shape, sum(end - first for first, end in spans)

    def sample(self, name: str) -> bytes:
        # Read, not mapped: a page fault would bring in much more than the sample.
        first, end = self._entry(name)["data_offsets"]
        middle = first + (end - first) // 2
        with self._path.open("rb") as stream:
            stream.seek(self._data + first)
            start = stream.read(min(SAMPLE, end - first))
            stream.seek(self._data + middle)
            return start + stream.read(min(SAMPLE, end - middle))

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._header:
            raise UserError(f"{name} is not in {self._path}, where the index says it is")
        entry: dict[str, Any] = self._header[name]
        return entry

    def read(self, name: str) -> "Tensor":
        found = self.grouped(name, "")
        return self._tensor(name) if found is None else found.widened()

    def grouped(self, name: str, quant: str) -> "Grouped | None":
        self._entry(name)
        note = self._notes.get(name)
        if note is None:
            return None
        from gardener.model.checkpoint.grouped_parts import together

        parts = {part: self._tensor(full) for part, full in parts_of(name, note).items()}
        return together(f"{name} in {self._path}", note.bits, parts)

    def layout(self, name: str, quant: str) -> "Layout | None":
        found = self.grouped(name, quant)  # mapped
        if found is None:
            return None
        from gardener.model.checkpoint.grouped_parts import Layout

        narrow = self._header[f"{name}.scales"]["dtype"] == "F16"
        zeros, minima = found.zeros is not None, found.minima is not None
        return Layout(found.bits, found.group, narrow, zeros, minima)

    def table(self, name: str) -> "Table":
        found = self.grouped(name, "")
        if found is None:
            return super().table(name)
        from gardener.model.checkpoint.table import GroupedTable

        return GroupedTable(found)

    def _tensor(self, name: str) -> "Tensor":
        try:
            self._handle = self._handle or safe_open(self._path, framework="pt")
            tensor: Tensor = self._handle.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{name} cannot be read from {self._path}: {error}") from error
        return tensor


class BinFile(WeightFile):
    def __init__(self, path: Path) -> None:
        self._tensors = torch_load(path)
        self._path = path

    def info(self, name: str) -> tuple[tuple[int, ...], int]:
        tensor = self.read(name)
        return tuple(tensor.shape), tensor.nbytes

    def read(self, name: str) -> "Tensor":
        if name not in self._tensors:
            raise UserError(f"{name} is not in {self._path}, where the index says it is")
        return self._tensors[name]


def torch_load(path: Path) -> "dict[str, Tensor]":
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
