"""What a kernel for linear layers is. Each kind has a file of its own; `linear.py` chooses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

UNTRIED = 1.0
"""The spread of a kernel that nobody has tried: a row may be off by all of its size."""


class Linear(Protocol):
    """Rows [n, inputs] to rows [n, outputs].

    spread  how far a row may be from itself in another batch, see `trial.Trial`; 0.0: not at all
    """

    nbytes: int
    spread: float

    def __call__(self, x: Tensor) -> Tensor: ...


Make: TypeAlias = Callable[[Tensor, Tensor | None], Linear]
"""A linear layer from weights [outputs, inputs] and a bias."""


@dataclass(frozen=True)
class CPUKernel:
    """One kind of linear layer on the CPU.

    make  raises OverflowError for weights that this kind cannot hold
    pays  whether it is to be taken for weights of this dtype on this CPU
    """

    make: Make
    pays: Callable[[torch.dtype], bool]


def works(make: Make, dtype: torch.dtype) -> bool:
    """Whether this build of torch has the operations for this dtype, and this CPU the kernels.

    Tried out, not guessed.
    """
    weight, x = torch.eye(16, dtype=dtype), torch.arange(32.0).reshape(2, 16).to(dtype)
    try:
        return torch.equal(make(weight, None)(x), x)
    except (RuntimeError, AttributeError):
        return False
