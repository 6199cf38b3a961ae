"""Weights in groups: what goes in comes out, to half a step."""

import gguf
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
    # An end may lie outside of the steps that serve the others best.
    assert (off <= got.scales[..., None] * 1.5).all()
    assert off.mean() < got.scales.mean() * 0.3


@pytest.mark.parametrize("skewed", [0.0, 0.5, 8.0])
def test_weights_are_nearer_than_those_of_gguf(skewed: float) -> None:
    weight = torch.randn(300, 960, generator=torch.Generator().manual_seed(1)) + skewed

    def error(got: torch.Tensor) -> float:
        return (got - weight).square().sum().item()

    for kind, bits, share in (("Q4_0", 4, 0.82), ("Q8_0", 8, 0.99)):
        stored = gguf.GGMLQuantizationType[kind]
        theirs = gguf.quants.quantize(weight.numpy(), stored)
        rival = torch.from_numpy(gguf.quants.dequantize(theirs, stored))
        assert error(rounded(weight, bits, 32).widened()) < share * error(rival)


@pytest.mark.parametrize("bits", [4, 8])
def test_numbers_that_have_steps_stay_as_they_are(bits: int) -> None:
    top = 2**bits - 1
    weight = torch.arange(32.0).fmod(top + 1).sub(5).mul(0.25).repeat(3, 2)
    weight[:, 31::32] = (top - 5) * 0.25
    torch.testing.assert_close(rounded(weight.bfloat16(), bits, 32).widened(), weight)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("value", [0.0, 1e-40])
def test_a_group_of_zeros_stays_zero(bits: int, value: float) -> None:
    assert rounded(torch.full((2, 32), value), bits, 32).widened().eq(0).all()


def test_weights_of_one_kind_are_joined() -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    first = rounded(weight, 4, 32)
    second = Grouped(4, 32, first.steps, first.scales, None, torch.ones(4, 2))
    both = joined([first, second])
    assert both is not None
    torch.testing.assert_close(both.widened(), torch.cat((first.widened(), second.widened())))
    assert joined([first, rounded(weight, 8, 32)]) is None


def test_parts_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 2\) are due"):
        Grouped(4, 32, torch.zeros(4, 32, dtype=torch.uint8), torch.ones(4, 3))
    with pytest.raises(ValueError, match="multiple of groups of 32"):
        rounded(torch.zeros(2, 40), 4, 32)


@pytest.mark.parametrize("group", [8, 48, 512])
def test_groups_that_no_kernel_takes_are_refused(group: int) -> None:
    with pytest.raises(ValueError, match=f"groups of {group}, not of 16, 32, 64, 128, 256"):
        Grouped(8, group, torch.zeros(4, 2 * group, dtype=torch.uint8), torch.ones(4, 2))
