"""Layers of ONNX Runtime: the product of the weights they hold, the same bits in any batch."""

import sys

import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from gardener.errors import UserError
from gardener.model.kernels.grouped import Grouped
from gardener.model.kernels.onnx_linear import OnnxLinear


def drawn(
    outputs: int, inputs: int, bits: int, group: int, *, zeros: bool = False, minima: bool = False
) -> Grouped:
    draw = torch.Generator().manual_seed(outputs + inputs + bits)
    grid = (outputs, inputs // group)
    middle = 2 ** (bits - 1)
    size = (outputs, inputs * bits // 8)
    return Grouped(
        bits,
        group,
        torch.randint(0, 256, size, generator=draw, dtype=torch.uint8),
        (torch.rand(grid, generator=draw) + 0.5) / middle,
        torch.randint(0, 2 * middle, grid, generator=draw, dtype=torch.uint8) if zeros else None,
        torch.randn(grid, generator=draw) if minima else None,
    )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [16, 32, 64, 128, 256])
@pytest.mark.parametrize(
    ("zeros", "minima", "biased"),
    [(False, False, False), (True, False, True), (False, True, False), (True, True, True)],
)
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 256), (33, 384)])
def test_a_layer_is_the_product_of_its_weights(
    outputs: int, inputs: int, bits: int, group: int, zeros: bool, minima: bool, biased: bool
) -> None:
    inputs = -(-inputs // group) * group
    weight = drawn(outputs, inputs, bits, group, zeros=zeros, minima=minima)
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(5, inputs, generator=draw)
    bias = torch.randn(outputs, generator=draw) if biased else None
    layer = OnnxLinear(weight, bias)
    wide = weight.widened()
    expected = torch.nn.functional.linear(x, wide, bias)
    # A row is rounded to a 254th of the largest of its group, on either side.
    largest = x.view(5, -1, group).abs().amax(-1).repeat_interleave(group, 1)
    without = wide if weight.minima is None else wide - weight.minima.repeat_interleave(group, 1)
    worst = (largest / 254) @ without.abs().T
    assert ((layer(x) - expected).abs() <= worst + 1e-3).all()
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(layer(x.to(dtype)), layer(x.to(dtype).float()).to(dtype))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("minima", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_row_gives_the_same_bits_in_any_batch(
    bits: int, minima: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    layer = OnnxLinear(drawn(1200, 512, bits, 32, zeros=True, minima=minima), None)
    x = torch.randn(40, 512, generator=torch.Generator().manual_seed(1))
    whole = layer(x)
    for rows in range(1, 40):
        assert torch.equal(layer(x[:rows]), whole[:rows])
        assert torch.equal(layer(x[40 - rows :]), whole[40 - rows :])


def test_a_layer_knows_its_bytes() -> None:
    weight = drawn(64, 128, 4, 32, zeros=True)
    layer = OnnxLinear(weight, torch.zeros(64))
    assert layer.nbytes == 64 * 128 // 2 + 3 * 64 * 4 * 4 + 64 * 4 // 2 + 64 * 4


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"need the package onnx\w*: pip install 'gardener"):
        OnnxLinear(drawn(48, 64, 8, 32), None)
