"""How the tensors of a checkpoint are written to another folder: copied, or quantised on the way.

Tensors are read one at a time, so that hardly more than one of them is in memory.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from gardener.model.checkpoint.grouped_parts import Layout
from gardener.model.checkpoint.notes import WHOLE
from gardener.model.checkpoint.quantised import Quantised
from gardener.model.checkpoint.safetensors_writer import Entry, SafetensorsWriter
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD, Checkpoint
from gardener.model.finite import check_finite
from gardener.model.kernels.rounding import rounded
from gardener.model.quants import GROUP, GROUPED, fitting_group

FILE = "model.safetensors"

_LINEAR = re.compile(r"^model\.layers\.\d+\.(self_attn|mlp)\..*_proj\.weight$")
"""Not the gate of a mixture: what it says decides how later layers round."""

_AT_ONCE = 1 << 22
"""Weights that are converted in one go."""


@dataclass(frozen=True)
class Piece(ABC):
    """A tensor of a checkpoint, which becomes `name` in a file."""

    checkpoint: Checkpoint
    source: str
    name: str

    @property
    @abstractmethod
    def entries(self) -> Mapping[str, Entry]:
        """Of all that is written for it."""

    @abstractmethod
    def write(self, writer: SafetensorsWriter) -> None:
        """Write all that. Raises UserError for what cannot be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return self.checkpoint.info(self.source).shape


@dataclass(frozen=True)
class Copied(Piece):
    """In floats, of this dtype; None: as it is stored."""

    dtype: torch.dtype | None

    @property
    def entries(self) -> Mapping[str, Entry]:
        dtype = self.dtype or self.checkpoint.read(self.source).dtype
        return {self.name: Entry(dtype, self.shape)}

    def write(self, writer: SafetensorsWriter) -> None:
        tensor = self.checkpoint.read(self.source)
        dtype = self.dtype or tensor.dtype
        if not tensor.ndim:
            writer.write(self.name, tensor.to(dtype))
            return
        rows = max(1, _AT_ONCE * len(tensor) // max(tensor.numel(), 1))
        for first in range(0, len(tensor), rows):
            writer.write(self.name, tensor[first : first + rows].to(dtype), first)


@dataclass(frozen=True)
class InGroups(Piece):
    """A matrix in groups, laid out so."""

    layout: Layout

    @property
    def entries(self) -> Mapping[str, Entry]:
        outputs, inputs = self.shape
        return self.layout.entries(self.name, outputs, inputs)


@dataclass(frozen=True)
class Taken(InGroups):
    """As it is quantised in the checkpoint, for this kind of `quants.GROUPED`."""

    quant: str

    def write(self, writer: SafetensorsWriter) -> None:
        found = self.checkpoint.grouped(self.source, self.quant)
        assert found is not None, self.source  # it has a layout
        for part, tensor in self.layout.parts(self.name, found).items():
            writer.write(part, tensor)


@dataclass(frozen=True)
class Rounded(InGroups):
    """Quantised on the way."""

    def write(self, writer: SafetensorsWriter) -> None:
        weight = self.checkpoint.read(self.source)
        check_finite(self.source, weight)
        found = rounded(weight, self.layout.bits, self.layout.group)
        for part, tensor in self.layout.parts(self.name, found).items():
            writer.write(part, tensor)


def pieces(
    checkpoint: Checkpoint,
    names: Sequence[str],
    dtype: torch.dtype | None = None,
    how: Quantised | None = None,
    head: str | None = None,
) -> list[Piece]:
    """How to write these tensors. What is not quantised becomes `dtype`; None: as it is stored.

    how   how to quantise, or how a quantised checkpoint is; None: floats, and a quantised
          checkpoint as it is
    head  the name of the output matrix, if it is to be written: it gets a tensor of its own where
          it is quantised, and the embedding is only written if it is among `names`
    """
    found = [_piece(checkpoint, name, dtype, how) for name in names if name != HEAD]
    if head is not None:
        found += _head(checkpoint, head, names, dtype, how)
    return found


def _piece(
    checkpoint: Checkpoint, name: str, dtype: torch.dtype | None, how: Quantised | None
) -> Piece:
    quant = "int8" if how is None else how.quant
    layout = checkpoint.layout(name, quant)
    if layout is not None and (how is not None or checkpoint.gguf is None):
        return Taken(checkpoint, name, name, layout, quant)
    if how is not None and _LINEAR.match(name):
        made = _rounded(checkpoint, name, name, quant, how.group)
        if made is not None:
            return made
    return Copied(checkpoint, name, name, dtype)


def _head(
    checkpoint: Checkpoint,
    head: str,
    names: Sequence[str],
    dtype: torch.dtype | None,
    how: Quantised | None,
) -> list[Piece]:
    quant = "none" if how is None else how.quant_head
    layout = checkpoint.layout(head, "int8" if quant == "none" else quant)
    if layout is not None and (quant != "none" or checkpoint.gguf is None):
        return [Taken(checkpoint, head, HEAD, layout, quant)]
    if quant != "none" and (made := _rounded(checkpoint, head, HEAD, quant, GROUP)):
        return [made]
    shared = head == EMBEDDING
    return [] if shared and head in names else [Copied(checkpoint, head, head, dtype)]


def _rounded(
    checkpoint: Checkpoint, source: str, name: str, quant: str, most: int
) -> Rounded | None:
    """In groups of `most` at most, as loaders round; None for what they refuse, or take apart
    first: they shall say so."""
    shape = checkpoint.info(source).shape
    group = fitting_group(shape[1], most) if len(shape) == 2 else None
    if group is None:
        return None
    return Rounded(checkpoint, source, name, rounded_layout(GROUPED[quant], group))


@cache
def rounded_layout(bits: int, group: int) -> Layout:
    """Of what `rounded` makes, which is tried on one group."""
    made = rounded(torch.linspace(-1, 1, group)[None], bits, group)
    return Layout(bits, group, False, made.zeros is not None, made.minima is not None)


def write_pieces(found: Sequence[Piece], folder: Path, how: Quantised | None = None) -> None:
    """Write them to `model.safetensors` in this folder, of which the config says that they are
    quantised so. Raises UserError."""
    entries = {name: entry for piece in found for name, entry in piece.entries.items()}
    notes = {
        piece.name: str(piece.layout.note) for piece in found if isinstance(piece, (Taken, Rounded))
    }
    if how is not None:
        notes[WHOLE] = how.name
    with SafetensorsWriter(folder / FILE, entries, notes) as writer:
        for piece in found:
            piece.write(writer)
            piece.checkpoint.release()


def size_of(found: Sequence[Piece]) -> int:
    """Bytes of the tensors that will be written."""
    return sum(entry.nbytes for piece in found for entry in piece.entries.values())
