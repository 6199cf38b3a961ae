"""The header of a GGUF file: its metadata, and where each tensor lies.

The reader of the `gguf` package makes several arrays for each token of a vocabulary: 6 s and 500 MB
for 150,000 tokens and as many merges, on a machine that may be small. This one takes 0.3 s. What
the numbers in a header mean is the package's own (`gguf.constants`). Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gardener.errors import UserError, reason
from gardener.model.checkpoint.folders import refuse_pointer

_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"
}  # fmt: skip
"""The types of metadata that are numbers, as `struct` names them."""

_MOST_AXES = 4
_ALIGNMENT = "general.alignment"


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor as it is stored. `type`: of GGML, by its name, like Q4_0. `shape`: rows first, as
    torch has it. `offset`: of its first byte in the file."""

    type: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class GGUFHeader:
    """What a file says before its tensors' data."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]


def read_header(path: Path) -> GGUFHeader:
    """Raises UserError for a file that is no GGUF file, damaged or cut short, or whose tensors are
    of a type that is not known."""
    refuse_pointer(path)
    try:
        with path.open("rb") as stream:
            if not path.stat().st_size:
                raise ValueError("it is empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Header(data).read()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: {reason(error)}: is it a GGUF file, and whole?"
        ) from error


class _Header:
    """Reads from the beginning on. Raises ValueError for what cannot be."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def read(self) -> GGUFHeader:
        if self._take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = int(self._number("I"))
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            if swapped in _VERSIONS:
                raise ValueError("its numbers are big-endian, for another kind of machine")
            raise ValueError(f"it is of version {version}; versions 2 and 3 are known")
        tensors, keys = int(self._number("Q")), int(self._number("Q"))
        metadata = {}
        for _ in range(keys):
            key = self._string()
            if key in metadata:
                raise ValueError(f"it has the key {key} twice")
            metadata[key] = self._value(int(self._number("I")))
        return GGUFHeader(metadata, self._tensors(tensors, metadata.get(_ALIGNMENT, 32)))

    def _tensors(self, count: int, alignment: Any) -> dict[str, GGUFTensor]:
        if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
            raise ValueError(f"{_ALIGNMENT} is {alignment}, which is no power of two from 8 on")
        found: dict[str, tuple[int, tuple[int, ...], int]] = {}
        for _ in range(count):
            name, axes = self._string(), int(self._number("I"))
            if name in found:
                raise ValueError(f"it has the tensor {name} twice")
            if not 1 <= axes <= _MOST_AXES:
                raise ValueError(f"{name} has {axes} axes")
            shape = tuple(int(self._number("Q")) for _ in range(axes))
            found[name] = (int(self._number("I")), shape[::-1], int(self._number("Q")))
        start = -(-self._at // alignment) * alignment
        placed = {}
        for name, (kind, shape, offset) in found.items():
            placed[name] = _placed(name, kind, shape, start + offset)
            if placed[name].offset + placed[name].nbytes > len(self._data):
                raise ValueError(f"it ends before {name} does")
        return placed

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _NUMBERS:
            raise ValueError(f"there is no type {kind} of metadata")
        return self._number(_NUMBERS[kind])

    def _array(self) -> list[Any]:
        kind, count = int(self._number("I")), int(self._number("Q"))
        if kind == _STRING:
            return [self._string() for _ in range(count)]
        if kind not in _NUMBERS:
            raise ValueError(f"there are no arrays of type {kind}")
        size = struct.calcsize(f"<{_NUMBERS[kind]}")
        raw = self._take(count * size)
        return list(struct.unpack(f"<{count}{_NUMBERS[kind]}", raw))

    def _string(self) -> str:
        return self._take(int(self._number("Q"))).decode("utf-8")

    def _number(self, kind: str) -> float:
        value: float = struct.unpack(f"<{kind}", self._take(struct.calcsize(f"<{kind}")))[0]
        return value

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ValueError("it ends within its header")
        taken = self._data[self._at : end]
        self._at = end
        return taken


def _placed(name: str, kind: int, shape: tuple[int, ...], offset: int) -> GGUFTensor:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        known = GGMLQuantizationType(kind)
    except ValueError:
        raise ValueError(f"{name} is of type {kind}, which is not known") from None
    block, size = GGML_QUANT_SIZES[known]
    if shape[-1] % block:
        raise ValueError(f"{name} has rows of {shape[-1]}, no multiple of {block} ({known.name})")
    return GGUFTensor(known.name, shape, offset, math.prod(shape) // block * size)
