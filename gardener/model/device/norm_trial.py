"""Whether a norm gives a row the same bits in every filled pass, on this device.

How many threads share a row, and with them the order in which its squares are added up, kernels may
choose by the number of rows; older versions of torch compose a norm of several kernels, of which
each chooses for itself. So all norms of a model are tried when a stage is built.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.kernels.synthetic import ordinary
from gardener.model.norm import rms_norm

Norm: TypeAlias = Callable[[Tensor, Tensor, float], Tensor]
"""As `norm.rms_norm`."""

_LEFT = 2.0**-8
"""The part of a row's mean square that a trial leaves of it: what rounding to 16 bits would hide of
the error of a sum, is seen in what is left."""

_ELSEWHERE = 7  # places by which rows are moved on, and so come to other neighbours


class Normed(NamedTuple):
    """A norm of a model, of `size` numbers of a row, for each of its `heads` (1: of all)."""

    heads: int
    size: int


def norms_of(architecture: Architecture) -> Iterator[Normed]:
    """All kinds that a model has."""
    a = architecture
    yield Normed(1, a.width)
    if a.qk_norm:
        for heads in (a.heads, a.kv_heads):
            whole = a.norms == "after"
            yield Normed(1, heads * a.head_dim) if whole else Normed(heads, a.head_dim)


@torch.inference_mode()
def norms_keep(
    architecture: Architecture,
    dtype: torch.dtype,
    device: torch.device,
    sizes: Sequence[int],
    norm: Norm = rms_norm,
) -> bool:
    """Whether rows of this dtype have the same bits in passes of all these sizes (ascending)."""
    weights = torch.float32 if architecture.wide_norm else dtype
    return all(
        _keeps(normed, dtype, weights, device, sizes, norm, architecture.eps)
        for normed in dict.fromkeys(norms_of(architecture))
    )


def _keeps(
    normed: Normed,
    dtype: torch.dtype,
    weights: torch.dtype,
    device: torch.device,
    sizes: Sequence[int],
    norm: Norm,
    eps: float,
) -> bool:
    weight = (ordinary(1, normed.size)[0].abs() + 0.5).to(device, weights)
    for rows, least in _rows(normed, sizes[-1], dtype, eps):
        given = rows.to(device)
        if rows.dim() == 3:  # heads stand beside others in the same row, as queries and keys do
            given = torch.cat((given, given), 1)[:, : rows.shape[1]]
        whole = norm(given, weight, least)
        moved = norm(given.roll(_ELSEWHERE, 0), weight, least)
        if not torch.equal(moved, whole.roll(_ELSEWHERE, 0)):
            return False
        for count in sizes:
            for first in (0, len(given) - count):
                part = slice(first, first + count)
                if not torch.equal(norm(given[part], weight, least), whole[part]):
                    return False
    return True


def _rows(
    normed: Normed, rows: int, dtype: torch.dtype, eps: float
) -> Iterator[tuple[Tensor, float]]:
    """Rows [rows, size] or [rows, heads, size], and what is added to their mean squares: ordinary
    ones; and such as have the same numbers in different orders, of whose mean square little is left
    when that is added."""
    heads, size = normed
    numbers = ordinary(1, size)[0].to(dtype)
    chance = torch.Generator().manual_seed(1)
    orders = torch.rand(rows, heads * size, generator=chance).view(rows, heads, size).argsort(-1)
    mean = float(numbers.double().square().mean())
    usual = ordinary(rows, heads * size).to(dtype).view(rows, heads, size)
    for kind, least in ((usual, eps), (numbers[orders], (_LEFT - 1) * mean)):
        yield kind[:, 0] if heads == 1 else kind, least
