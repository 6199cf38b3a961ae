"""Whole graphs, batch-invariant as linear layers are: tried, and padded where that helps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from gardener.model.kernels.batch_invariant import padded
from gardener.model.kernels.interface import Linear
from gardener.model.kernels.onnx_graph import OnnxRun


class RowRun(Protocol):
    """Several rows [n, width] each to several, each row for itself."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...

    def __call__(self, *rows: Tensor) -> list[Tensor]: ...


def tried(run: OnnxRun, read: Sequence[int], made: Sequence[int]) -> RowRun:
    """A graph that gives a row the same bits whatever is beside it. `read`, `made`: how wide its
    inputs and outputs are.

    It is tried itself, with the weights that it has: in float32, nearly every sum tells of another
    order. Graphs of the same form are tried once.
    """
    side_by_side = _SideBySide(run, read)
    again = _Again(run.form, side_by_side)
    inputs, cpu = sum(read), torch.device("cpu")
    found = padded(side_by_side, f"graph {run.form}", again, sum(made), inputs, torch.float32, cpu)
    return run if found is side_by_side else _Padded(found, made)


class _SideBySide:
    """A graph as a linear layer: all that it reads in one row, and all that it gives."""

    def __init__(self, run: OnnxRun, read: Sequence[int]) -> None:
        self._run, self._read, self.nbytes = run, read, run.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat(self._run(*x[:, : sum(self._read)].split_with_sizes(self._read, -1)), -1)


@dataclass(frozen=True)
class _Again:
    """Gives the layer that is to be tried, which is there already."""

    form: str
    layer: Linear = field(compare=False)

    def __call__(self, part: Tensor, outputs: int) -> Linear:
        return self.layer


class _Padded:
    """A graph some of whose numbers of rows need padding."""

    def __init__(self, layer: Linear, made: Sequence[int]) -> None:
        self._layer, self._made, self.nbytes = layer, made, layer.nbytes

    def __call__(self, *rows: Tensor) -> list[Tensor]:
        wide = [each.float() for each in rows]
        return list(self._layer(torch.cat(wide, -1)).split_with_sizes(self._made, -1))
