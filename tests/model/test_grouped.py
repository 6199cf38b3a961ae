"""Weights in groups: what goes in comes out, to half a step."""

import pytest
import torch

from gardener.model.kernels.grouped import Grouped, joined
from gardener.model.kernels.rounding import rounded


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [32, 64])
def test_weights_are_rounded_to_the_next_step(bits: int, group: int) -> None:
    weight = torch.randn(6, 128, generator=torch.Generator().manual_seed(1))
    got = rounded(weight, bits, group)
    assert got.shape == (6, 128)
    off = (got.widened() - weight).abs().view(6, -1, group)
    # At the far end, which has no counterpart, it may be a whole step.
    assert (off <= got.scales.abs()[..., None] * 1.001).all()
    assert off.mean() < got.scales.abs().mean() * 0.3


def test_a_group_of_zeros_stays_zero() -> None:
    assert rounded(torch.zeros(2, 32), 4, 32).widened().eq(0).all()


def test_weights_of_one_kind_are_joined() -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    first, second = rounded(weight, 4, 32), rounded(weight, 4, 32)
    zeros = torch.full((4, 2), 7, dtype=torch.uint8)
    second = Grouped(4, 32, second.steps, second.scales, zeros, torch.ones(4, 2))
    both = joined([first, second])
    assert both is not None
    torch.testing.assert_close(both.widened(), torch.cat((first.widened(), second.widened())))
    assert joined([first, rounded(weight, 8, 32)]) is None


def test_parts_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 2\) are due"):
        Grouped(4, 32, torch.zeros(4, 32, dtype=torch.uint8), torch.ones(4, 3))
    with pytest.raises(ValueError, match="multiple of groups of 32"):
        rounded(torch.zeros(2, 40), 4, 32)
