"""Layers of `Grouped` weights are batch-invariant, in float32 too: their rows are rounded."""

import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from gardener.model.kernels.beside import Beside
from gardener.model.kernels.grouped import Grouped
from gardener.model.kernels.grouped_linear import grouped_linear
from gardener.model.kernels.rounding import rounded


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(("bits", "group"), [(4, 16), (4, 64), (4, 128), (8, 32), (8, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_do_not_depend_on_their_number(bits: int, group: int, dtype: torch.dtype) -> None:
    # With groups of 64, the kernel itself adds up the last one of an odd number in another order.
    layer = grouped_linear([rounded(drawn(96, 384), bits, group)], None)
    x = drawn(24, 384).to(dtype)
    whole = layer(x)
    assert whole.dtype == dtype
    for rows in range(1, 24):
        assert torch.equal(layer(x[:rows]), whole[:rows])


def test_neighbours_of_one_kind_are_one_layer_and_others_stand_beside_it() -> None:
    parts = [rounded(drawn(rows, 64), 4, 32) for rows in (32, 16)]
    assert not isinstance(grouped_linear(parts, None), Beside)
    high, bias, x = rounded(drawn(24, 64), 8, 16), drawn(72), drawn(3, 64)
    whole: list[Grouped] = [*parts, high]
    layer = grouped_linear(whole, bias)
    assert isinstance(layer, Beside)
    expected = torch.nn.functional.linear(x, torch.cat([w.widened() for w in whole]), bias)
    assert (layer(x) - expected).norm() < 0.02 * expected.norm()
    assert layer.nbytes > sum(part.nbytes for part in whole)
