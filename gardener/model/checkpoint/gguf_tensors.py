"""Tensors that lie in GGUF files, read one at a time.

An index beside the files, written once (`gguf.py`), says where each tensor of the checkpoint is, so
that a later start reads no header. What converters changed is undone here: rows of q and k that are
interleaved, norms with one added. Quantised tensors become float32, with the arithmetic of the
`gguf` package; others stay as they are stored, views of the mapped file.
"""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from gardener.errors import UserError, reason
from gardener.model.checkpoint.folders import read_json
from gardener.model.checkpoint.gguf_files import FORMAT
from gardener.model.checkpoint.gguf_types import AS_STORED, dequantised
from gardener.model.checkpoint.weight_files import SAMPLE, WeightFile

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gardener.model.checkpoint.grouped_parts import Layout
    from gardener.model.checkpoint.table import Table
    from gardener.model.kernels.grouped import Grouped

INDEX = "model.gguf.index.json"

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
"""What `gguf_tokenizer.py` writes."""

_AT_ONCE = 1 << 20
"""Numbers that a thread dequantises in one go: they fit into a cache."""

WAY_OUT = "give the .gguf file itself, from which all else is made anew"


class Stored(msgspec.Struct, frozen=True):
    """A tensor of the checkpoint, as it lies in a file.

    type   of GGML, like Q4_0
    shape  rows first, as torch has it
    heads  so many heads have interleaved rows; 0: they are in order
    shift  what was added to it
    """

    file: str
    type: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    heads: int = 0
    shift: float = 0.0


class FileState(msgspec.Struct, frozen=True):
    """A file as it was when the index was written. `mtime`: in nanoseconds; None: does not count,
    since the file may have been copied."""

    size: int
    mtime: int | None = None


class Index(msgspec.Struct, frozen=True):
    """Where the tensors of a checkpoint are, by their names on the hub."""

    format: int
    files: Mapping[str, FileState]
    tensors: Mapping[str, Stored]

    @property
    def named(self) -> set[str]:
        """All files that it names."""
        return {stored.file for stored in self.tensors.values()} | self.files.keys()


def read_index(folder: Path) -> Index:
    """Raises UserError."""
    file = folder / INDEX
    try:
        index = msgspec.json.decode(file.read_bytes(), type=Index)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({reason(error)}): {WAY_OUT}") from error
    if index.format != FORMAT:
        raise UserError(f"{file} is of format {index.format}, not {FORMAT}: {WAY_OUT}")
    for name in index.named:
        if Path(name).name != name:
            raise UserError(f"{file} names a file outside of its folder: {name}")
    return index


def is_light_folder(folder: Path) -> bool:
    """Whether all is there that `gguf.py` writes: what lacks a part of it would be read, if at all,
    as a model that ends elsewhere, or has no chat template."""
    try:
        named = read_index(folder).named
        read_json(folder / "config.json")
    except UserError:
        return False
    return all((folder / name).is_file() for name in (*TOKENIZER_FILES, *named))


def write_index(
    folder: Path, files: Mapping[str, FileState], tensors: Mapping[str, Stored]
) -> None:
    (folder / INDEX).write_bytes(msgspec.json.encode(Index(FORMAT, files, tensors)))


class GGUFFile(WeightFile):
    """One file of an index, mapped."""

    def __init__(self, path: Path, index: Index, dtype: "torch.dtype | None") -> None:
        """`dtype`: of what is dequantised; None: float32. Raises UserError if the file is not what
        it was."""
        self._tensors, self._dtype = index.tensors, dtype
        state = index.files[path.name]
        try:
            found = path.stat()
            self._data = np.memmap(path, np.uint8, "c")  # copies on writing: nobody writes
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({reason(error)}): {WAY_OUT}") from error
        if found.st_size != state.size or state.mtime not in (None, found.st_mtime_ns):
            raise UserError(f"{path} was changed after it was read for the first time: {WAY_OUT}")

    def info(self, name: str) -> tuple[tuple[int, ...], int]:
        stored = self._tensors[name]
        return stored.shape, stored.nbytes

    def sample(self, name: str) -> bytes:
        """As of the tensor that `read` gives; only the rows that it needs are read."""
        stored = self._tensors[name]
        size = {"F16": 2, "BF16": 2}.get(stored.type, 4)
        end = math.prod(stored.shape) * size
        middle = end // 2
        return self._bytes(stored, size, 0, min(SAMPLE, end)) + self._bytes(
            stored, size, middle, min(middle + SAMPLE, end)
        )

    def _bytes(self, stored: Stored, size: int, first: int, end: int) -> bytes:
        """Bytes [first, end) of the tensor, whose numbers have `size` each."""
        rows = self.raw(stored)
        row = math.prod(stored.shape) // max(len(rows), 1) * size
        start = first // row
        found: np.ndarray[Any, Any] = rows[_order(stored, len(rows))[start : -(-end // row)]]
        if stored.type not in AS_STORED:
            found = dequantised(found, stored.type)
        if stored.shift:
            found = found.view(np.float32) - np.float32(stored.shift)
        return found.tobytes()[first - start * row : end - start * row]

    def raw(self, stored: Stored) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Its bytes [rows, bytes of a row], as they lie in the file."""
        data = self._data[stored.offset : stored.offset + stored.nbytes]
        rows = math.prod(stored.shape[:-1])
        if stored.heads and len(stored.shape) == 1:
            rows = stored.shape[0]  # what is interleaved is the numbers of a bias
        return data.reshape(rows, -1)

    def stored(self, name: str) -> Stored:
        return self._tensors[name]

    def read(self, name: str) -> "Tensor":
        import torch  # late: it takes a second, and names and samples do without

        stored = self._tensors[name]
        rows = self.raw(stored)
        if stored.heads:
            rows = rows[_order(stored, len(rows))]
        if stored.type in AS_STORED:
            own = getattr(torch, AS_STORED[stored.type])
            tensor: Tensor = torch.from_numpy(rows).view(own).reshape(stored.shape)
        else:
            dtype = torch.float32 if stored.shift else self._dtype or torch.float32
            tensor = torch.empty(stored.shape, dtype=dtype)
            _fill(tensor.view(len(rows), -1), rows, stored.type, torch.get_num_threads())
        return tensor - stored.shift if stored.shift else tensor

    def grouped(self, name: str, quant: str) -> "Grouped | None":
        from gardener.model.checkpoint.gguf_grouped import form_of, grouped

        stored = self._tensors[name]
        form = form_of(stored.type, quant)
        if form is None or len(stored.shape) != 2:
            return None
        return grouped(self.raw(stored), _order(stored, stored.shape[0]), form)

    def layout(self, name: str, quant: str) -> "Layout | None":
        from gardener.model.checkpoint.gguf_grouped import form_of

        stored = self._tensors[name]
        form = form_of(stored.type, quant)
        return None if form is None or len(stored.shape) != 2 else form.layout

    def table(self, name: str) -> "Table":
        stored = self._tensors[name]
        if stored.type in AS_STORED or stored.heads or stored.shift or len(stored.shape) != 2:
            return super().table(name)
        from gardener.model.checkpoint.table import GGUFTable

        return GGUFTable(self.raw(stored), stored.type)


def _fill(
    out: "Tensor", rows: np.ndarray[Any, np.dtype[np.uint8]], kind: str, threads: int
) -> None:
    """Dequantise rows to `out` [rows, columns], some at a time, so that little more than `out` is
    in memory."""
    import torch

    step = max(1, _AT_ONCE // out.shape[1])

    def fill(first: int) -> None:
        some = dequantised(rows[first : first + step], kind)
        with torch.inference_mode(out.is_inference()):  # which each thread is told for itself
            out[first : first + step].copy_(torch.from_numpy(some))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(0, len(rows), step)))


def _order(stored: Stored, rows: int) -> np.ndarray[Any, Any]:
    """Where each row of the tensor is among those that are stored. The two halves of a head, which
    are rotated with each other, are stored in turns."""
    order = np.arange(rows)
    if not stored.heads:
        return order
    return order.reshape(stored.heads, -1, 2).swapaxes(1, 2).reshape(-1)
