"""Random matrices at the speed of copying: each row is cut out of one long run of random numbers.

No two rows of a matrix begin at the same place, so none is another one's double, and no token ties
with another. Places are multiples of a group, so that what is cut may be quantised already.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import torch
from torch import Tensor

NUMBERS = 1 << 24
"""How many random numbers there are."""

_AT_ONCE = 1 << 22
"""Weights that are cut in one go."""

Parts = Mapping[str, Tensor]
"""The same groups in their parts, [groups, size] each: numbers, or steps and scales."""


class Pool:
    """Random numbers of one size, in one form.

    group  how many of them lie together; places are counted in groups
    seed   the same places, for the same matrix, whatever the form
    """

    def __init__(self, std: float, group: int, seed: int, form: Callable[[Tensor], Parts]) -> None:
        """`form`: of normal numbers [groups, group]."""
        self._group, self._seed = group, seed
        self._parts = form(_normal(seed, NUMBERS).view(-1, group) * std)

    def cut(self, name: str, shape: tuple[int, int]) -> Iterator[tuple[int, Parts]]:
        """The parts [rows, ...] of the matrix `name`, some rows at a time, and the first row.

        Raises ValueError for inputs that are no multiple of the group, or more rows than there are
        places.
        """
        outputs, inputs = shape
        width = inputs // self._group
        places = NUMBERS // self._group - width + 1
        if inputs % self._group or outputs > places:
            raise ValueError(f"{name} has the shape {shape}, for groups of {self._group}")
        named = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
        chance = torch.Generator().manual_seed(int.from_bytes(named[:7], "little"))
        chosen = torch.randperm(places, generator=chance)[:outputs]
        windows = {
            part: each.as_strided((places, width * each.shape[1]), (each.shape[1], 1))
            for part, each in self._parts.items()
        }
        rows = max(1, _AT_ONCE // inputs)
        for first in range(0, outputs, rows):
            some = chosen[first : first + rows]
            yield first, {part: each[some] for part, each in windows.items()}


@cache
def _normal(seed: int, count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))
