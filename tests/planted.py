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
    """All rows where there are more than 64."""

    def other(self, rows: int) -> Tensor:
        return torch.full((rows,), rows > 64)


class Coarse(Plain):
    """Rounds rows at odd places to 8 bits, so that texts part, most of them at near ties."""

    def __call__(self, x: Tensor) -> Tensor:
        y = super().__call__(x)
        y[1::2] = y[1::2].to(torch.float8_e4m3fn).to(y.dtype)
        return y


def plant(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    """Let stages that are loaded from now on in this process take this kernel for all layers."""
    monkeypatch.setattr(linear, "CPU_KERNELS", (CPUKernel(make, lambda dtype: True),))
