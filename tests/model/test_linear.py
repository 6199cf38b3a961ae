"""Linear layers: what they compute, and that a row does not mind company."""

import pytest
import torch
import torch.nn.functional as F

from gardener.model.kernels.linear import linear
from gardener.model.kernels.widened import Widened

SIXTEEN = [torch.bfloat16, torch.float16]


def _has_kernels() -> bool:
    try:
        Widened(torch.ones(16, 16, dtype=torch.bfloat16), None)
    except (RuntimeError, AttributeError):
        return False
    return True


needs_kernels = pytest.mark.skipif(
    not _has_kernels(), reason="this build of torch has no FBGEMM, so no layer is widened"
)


@pytest.mark.parametrize("dtype", [torch.float32, *SIXTEEN])
@pytest.mark.parametrize("rows", [1, 2, 5, 16])
def test_a_linear_layer_is_what_torch_computes(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(rows)
    weight, bias, x = torch.randn(24, 2048), torch.randn(24), torch.randn(rows, 2048)
    weight, bias, x = weight.to(dtype), bias.to(dtype), x.to(dtype)
    got = linear(weight, bias)(x).float()
    expected = F.linear(x.float(), weight.float(), bias.float())
    torch.testing.assert_close(got, expected, atol=torch.finfo(dtype).eps * 600, rtol=0.01)


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("inputs", [32, 70, 576, 2048])
def test_a_row_gives_the_same_bits_in_any_company(dtype: torch.dtype, inputs: int) -> None:
    """On sums that nearly cancel out, which show the order of summing in 16 bits, too."""
    torch.manual_seed(inputs)
    half, rows = torch.randn(512, inputs // 2), torch.randn(40, inputs // 2)
    layer = linear(torch.cat((half, half), 1).to(dtype), None)
    rows = torch.cat((rows, -1.004 * rows), 1).to(dtype)
    whole = layer(rows)
    for count in range(1, 40):
        assert torch.equal(layer(rows[:count]), whole[:count]), count


@needs_kernels
@pytest.mark.parametrize("scale", [1e-25, 2.0**-14, 1.0, 1e25])
def test_widened_products_are_those_of_float32(scale: float) -> None:
    """However small or large the weights of bfloat16 are, and with weights of 0 among them."""
    torch.manual_seed(0)
    weight, x = torch.randn(48, 200) * scale, torch.randn(7, 200)
    weight[3, :50] = 0
    bias = torch.randn(48) * scale
    weight, bias, x = weight.bfloat16(), bias.bfloat16(), x.bfloat16()
    exact = F.linear(x.double(), weight.double(), bias.double())
    got = Widened(weight, bias)(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), exact, rtol=2.0**-8, atol=1e-5 * scale)


@needs_kernels
def test_weights_that_float16_cannot_hold_are_not_widened() -> None:
    """A row is of weights so small that float16 would round them."""
    weight = torch.ones(16, 64).bfloat16()
    weight[0], weight[1, 1] = 1.5e-10, 60.0
    with pytest.raises(OverflowError, match="do not fit"):
        Widened(weight, None)
    assert torch.equal(linear(weight, None)(torch.eye(64).bfloat16()).T, weight)
    weight[0] = torch.inf
    with pytest.raises(OverflowError, match="do not fit"):
        Widened(weight, None)


@needs_kernels
def test_a_few_weights_far_below_the_others_lose_less_than_float32_does() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(32, 400) * 0.02, torch.randn(5, 400)
    weight[:, ::50], weight[7, 7] = 1.3e-10, 4.0
    weight = weight.bfloat16().float()
    got = Widened(weight, None)(x)
    torch.testing.assert_close(got, F.linear(x, weight), rtol=1e-5, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("scale", [1e-38, 3e38])
def test_weights_at_the_ends_of_bfloat16_are_computed_as_before(scale: float) -> None:
    weight = torch.full((16, 64), scale).bfloat16()
    with pytest.raises(OverflowError, match="do not fit"):
        Widened(weight, None)


@needs_kernels
def test_a_layer_that_was_built_for_inference_works_outside_it() -> None:
    with torch.inference_mode():
        layer = Widened(torch.eye(16).bfloat16(), None)
    assert torch.equal(layer(torch.ones(1, 16).bfloat16()), torch.ones(1, 16))


@needs_kernels
def test_float32_out_of_a_16_bit_checkpoint_takes_half_the_memory() -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(48, 200).bfloat16().float(), torch.randn(48), torch.randn(7, 200)
    layer = Widened(weight, bias)
    assert layer.nbytes == weight.nbytes // 2 + bias.nbytes
    torch.testing.assert_close(layer(x), F.linear(x, weight, bias), rtol=1e-5, atol=1e-5)
    with pytest.raises(OverflowError, match="do not fit"):
        Widened(torch.randn(48, 200), bias)


@needs_kernels
def test_weights_of_zero_or_of_float16_are_widened() -> None:
    eye = torch.eye(64).half()
    assert not Widened(torch.zeros(16, 64).half(), None)(eye).any()
    weight = torch.tensor([6e-8, 65504.0, -1.0, 6.1e-5]).half().repeat(16, 16)
    assert torch.equal(Widened(weight, None)(eye).T, weight)
