"""Whole graphs, batch-invariant as linear layers are: tried, and padded where that helps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gardener.model.kernels.batch_invariant import Padded, padded
from gardener.model.kernels.interface import UNTRIED, Linear
from gardener.model.kernels.onnx_graph import OnnxRun


def tried(run: OnnxRun, read: Sequence[int], made: Sequence[int]) -> "RowRun":
    """A graph that gives a row the same bits whatever is beside it. `read`, `made`: how wide its
    inputs and outputs are.

    It is tried itself, with the weights that it has: in float32, nearly every sum tells of another
    order. Graphs of the same form are tried once.
    """
    side_by_side = _SideBySide(run, read)
    again = _Again(run.form, side_by_side)
    inputs, cpu = sum(read), torch.device("cpu")
    what = f"graph {run.form}"
    found = padded(side_by_side, what, again, sum(made), inputs, torch.float32, cpu, rounds=True)
    return RowRun(run, found, made)


class RowRun:
    """Several rows [n, width] each to several, each row for itself. spread: see
    `interface.Linear`."""

    def __init__(self, run: OnnxRun, padded: Padded, made: Sequence[int]) -> None:
        """`padded`: the same, side by side."""
        self._run, self._padded, self._made = run, padded, made
        self.nbytes, self.spread = run.nbytes, padded.spread

    def __call__(self, *rows: Tensor) -> list[Tensor]:
        if self._padded.keeps(len(rows[0])):
            return self._run(*rows)
        wide = [each.float() for each in rows]
        return list(self._padded(torch.cat(wide, -1)).split_with_sizes(self._made, -1))


class _SideBySide:
    """A graph as a linear layer: all that it reads in one row, and all that it gives."""

    def __init__(self, run: OnnxRun, read: Sequence[int]) -> None:
        self._run, self._read = run, read
        self.nbytes, self.spread = run.nbytes, UNTRIED

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat(self._run(*x[:, : sum(self._read)].split_with_sizes(self._read, -1)), -1)


@dataclass(frozen=True)
class _Again:
    """Gives the layer that is to be tried, which is there already."""

    form: str
    layer: Linear = field(compare=False)

    def __call__(self, part: Tensor, outputs: int) -> Linear:
        return self.layer
