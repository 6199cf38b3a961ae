"""Muon (Jordan et al. 2024): momentum whose steps have all directions of a matrix alike.

torch has it since 2.9, but computes it in bfloat16, which takes most of a training step on a
processor that has no instructions for it. This one computes in the dtype it is given.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95

_STEPS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # steepest at zero, so that five steps are enough


class Muon(torch.optim.Optimizer):
    """For matrices. `rate` is that of AdamW for steps of the same size (Liu et al. 2025)."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, decay: float, dtype: torch.dtype
    ) -> None:
        super().__init__(list(matrices), {"lr": lr})
        self._decay, self._dtype = decay, dtype  # of this run, whatever a saved state says

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._move(matrix, matrix.grad, group["lr"])

    def _move(self, matrix: nn.Parameter, slope: Tensor, lr: float) -> None:
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        state["momentum"].lerp_(slope, 1 - MOMENTUM)
        way = orthogonal(slope.lerp(state["momentum"], MOMENTUM).to(self._dtype))
        matrix.mul_(1 - lr * self._decay)
        matrix.add_(way, alpha=-lr * 0.2 * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly the matrix with all its singular values set to one, by Newton-Schulz iteration."""
    a, b, c = _COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x
