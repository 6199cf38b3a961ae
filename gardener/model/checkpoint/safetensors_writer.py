"""A safetensors file that is written a tensor, or some rows of one, at a time.

The library's own writer wants all tensors at once. The format: 8 bytes with the length of the
header, the header in JSON, then the data without gaps (`safetensors`, README, "Format").
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from gardener.errors import LocalError, UserError

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Entry:
    """A tensor that is to be written."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Of its numbers."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class SafetensorsWriter:
    """To be left as a context: what was not written by then is an error of ours."""

    def __init__(
        self, path: Path, entries: Mapping[str, Entry], metadata: Mapping[str, str]
    ) -> None:
        """`entries`: all tensors that the file will have, by name. Raises UserError for a dtype
        that such files do not know."""
        header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
        self._entries, self._offsets, end = dict(entries), dict[str, int](), 0
        # The widest come first, so that all lie at a multiple of their size, as they must.
        for name in sorted(entries, key=lambda name: (-entries[name].dtype.itemsize, name)):
            entry = entries[name]
            if entry.dtype not in _NAMES:
                raise UserError(f"{name} is of {entry.dtype}, which safetensors files do not know")
            self._offsets[name] = end
            header[name] = {
                "dtype": _NAMES[entry.dtype],
                "shape": entry.shape,
                "data_offsets": (end, end + entry.nbytes),
            }
            end += entry.nbytes
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self._left = end
        self._data = 8 + len(text)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, tensor: Tensor, row: int = 0) -> None:
        """Of this tensor, the rows from `row` on; every row once."""
        entry = self._entries[name]
        fits = tensor.shape[1:] == entry.shape[1:] and row + tensor.shape[:1].numel() <= (
            entry.shape[0] if entry.shape else 1
        )
        if tensor.dtype != entry.dtype or not fits:
            raise LocalError(f"{name} is {tensor.dtype} {list(tensor.shape)}, announced as {entry}")
        before = row * torch.Size(entry.shape[1:]).numel() * entry.dtype.itemsize
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        self._file.seek(self._data + self._offsets[name] + before)
        self._file.write(raw.data)
        self._left -= raw.nbytes

    def __enter__(self) -> "SafetensorsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if kind is None and self._left:
            raise LocalError(f"{self._left} bytes of {self._file.name} were not written")
