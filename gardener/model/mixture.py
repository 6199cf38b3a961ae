"""The feed-forward part of a mixture of experts (Shazeer et al. 2017; Jiang et al. 2024).

A router scores all experts for each row, and a row goes through the best few of them. So the rows
of a pass share little: each brings experts of its own, whose weights have to be read.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from gardener.errors import UserError
from gardener.model.feed_forward import FeedForward
from gardener.model.kernels.interface import Linear


def check_device(device: torch.device) -> None:
    """Raises UserError where the sums of a mixture cannot be computed."""
    if device.type == "mps":
        raise UserError(
            "a mixture of experts is summed up in float64, which mps does not compute: take "
            "another device, cpu for one"
        )


class Routes(NamedTuple):
    """Of each row: its experts, best first, [rows, chosen] int64, and their shares of the result,
    [rows, chosen] float32."""

    experts: Tensor
    shares: Tensor


class Router:
    """Which experts each row goes through.

    A row's routes do not depend on the rows beside it: of experts with equal scores, which are not
    rare in 16 bits, the one with the lower number is taken.
    """

    def __init__(self, gate: Linear, chosen: int, normalised: bool) -> None:
        """`gate`: [rows, width] to scores [rows, experts]. `normalised`: the shares of the `chosen`
        experts of a row sum up to one."""
        self._gate, self._chosen, self._normalised = gate, chosen, normalised
        self.nbytes = gate.nbytes

    def __call__(self, x: Tensor) -> Routes:
        odds = torch.softmax(self._gate(x).float(), -1)
        shares, experts = odds.sort(stable=True, descending=True)
        shares, experts = shares[:, : self._chosen], experts[:, : self._chosen]
        if self._normalised:  # summed up in float64, where the order leaves no trace
            shares = (shares / shares.sum(-1, keepdim=True, dtype=torch.float64)).float()
        return Routes(experts, shares)


class Experts:
    """A feed-forward part made of several.

    The rows of one expert are computed together, so it is read once for a pass, and not at all if
    no row goes through it. What the experts of a row give is added up in float64: in whatever order
    that is done, the result has the same bits.
    """

    def __init__(
        self, router: Router, experts: Sequence[FeedForward], device: torch.device
    ) -> None:
        self._router, self._experts = router, experts
        self._numbers = torch.arange(len(experts), device=device)
        self.nbytes = router.nbytes + sum(expert.nbytes for expert in experts)

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, width] to the same."""
        experts, shares = self._router(x)
        rows, chosen = experts.shape
        sorted_experts, order = experts.flatten().sort(stable=True)
        # How far each expert's rows reach. The only thing that has to come from another device.
        ends = torch.searchsorted(sorted_experts, self._numbers, right=True).tolist()
        taken = x[order.div(chosen, rounding_mode="floor")]
        made = [
            expert(taken[first:end])
            for expert, (first, end) in zip(self._experts, pairwise((0, *ends)), strict=True)
            if first < end
        ]
        by_row = torch.cat(made)[order.argsort()].view(rows, chosen, -1)
        total = torch.bmm(shares.double().unsqueeze(1), by_row.double())
        return total.squeeze(1).to(x.dtype)
