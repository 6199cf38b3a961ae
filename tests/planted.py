"""Kernels that are not batch-invariant, each in a way of its own, to be planted into a stage."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.kernels import linear
from gardener.model.kernels.interface import CPUKernel, Make
from gardener.model.kernels.plain import Plain


class Planted(Plain):
    """Adds up every row from its first term to its last, in float64 or from the other end in
    float32: which of the two, `other` says of the rows of a pass."""

    def __call__(self, x: Tensor) -> Tensor:
        usual = F.linear(x.double(), self._weight.double())
        turned = F.linear(x.flip(1).float(), self._weight.flip(1).float()).double()
        y = torch.where(self.other(len(x))[:, None], turned, usual).to(x.dtype)
        return y if self._bias is None else y + self._bias

    def other(self, rows: int) -> Tensor:
        """Of so many rows in one pass, those that are added up in the other order."""
        raise NotImplementedError


class ByPlace(Planted):
    """Rows at odd places, so that no number of rows helps."""

    def other(self, rows: int) -> Tensor:
        return torch.arange(rows) % 2 == 1


class Few(Planted):
    """All rows where there are one to three."""

    def other(self, rows: int) -> Tensor:
        return torch.full((rows,), rows < 4)


class FewOfMany(Few):
    """The same, but only where there are more than 64 outputs."""

    def other(self, rows: int) -> Tensor:
        return super().other(rows) & (len(self._weight) > 64)


class Large(Planted):
    """All rows where there are more than 40."""

    def other(self, rows: int) -> Tensor:
        return torch.full((rows,), rows > 40)


class Halves(Plain):
    """Adds up blocks of 64 inputs one after the other; where a row is alone, those of the first
    half and those of the second apart, as kernels for one row do."""

    def __call__(self, x: Tensor) -> Tensor:
        blocks = [
            F.linear(rows.double(), weights.double()).float()
            for rows, weights in zip(
                torch.split(x, 64, 1), torch.split(self._weight, 64, 1), strict=True
            )
        ]
        middle = len(blocks) // 2
        halves = blocks[:middle], blocks[middle:]
        y = sum(halves[0]) + sum(halves[1]) if len(x) == 1 else sum(blocks)
        return torch.as_tensor(y).to(x.dtype)


class Coarse(Plain):
    """Rounds rows at odd places to 8 bits, so that texts part, most of them at near ties."""

    def __call__(self, x: Tensor) -> Tensor:
        y = super().__call__(x)
        y[1::2] = y[1::2].to(torch.float8_e4m3fn).to(y.dtype)
        return y


def plant(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    """Let stages that are loaded from now on in this process take this kernel for all layers."""
    monkeypatch.setattr(linear, "CPU_KERNELS", (CPUKernel(make, lambda dtype: True),))
