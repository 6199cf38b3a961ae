"""The norm: in one kernel on a device where that rounds no worse."""

import pytest
import torch
from torch import Tensor

from gardener.model import norm as norms
from gardener.model.norm import rms_norm, rounds_once

META = torch.device("meta")


@pytest.mark.parametrize(
    ("rows", "weights", "device", "weighted"),
    [
        (torch.bfloat16, torch.bfloat16, META, True),
        (torch.float16, torch.float16, META, True),
        (torch.float32, torch.float32, META, True),
        (torch.bfloat16, torch.bfloat16, torch.device("cpu"), False),  # as it always was
        (torch.bfloat16, torch.float32, META, True),
    ],
)
def test_what_one_operation_does(
    rows: torch.dtype,
    weights: torch.dtype,
    device: torch.device,
    weighted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether the weight goes in, and whether rows of 16 bits go in as they are."""
    monkeypatch.setattr(norms, "rounds_once", lambda dtype: True)
    whole, seen = torch.rms_norm, []

    def norm(x: Tensor, shape: list[int], weight: Tensor | None, eps: float) -> Tensor:
        seen.append((x.dtype, weight is not None))
        return whole(x, shape, weight, eps)

    monkeypatch.setattr(torch, "rms_norm", norm)
    x, weight = torch.ones(3, 8, dtype=rows, device=device), torch.ones(8, device=device)
    y = rms_norm(x, weight.to(weights), 1e-5)
    assert (y.shape, y.dtype) == (x.shape, rows)
    one = device == META and rows == weights
    assert seen == [(rows if one else torch.float32, weighted)]


def in_16_bits(x: Tensor, shape: list[int], weight: Tensor | None, eps: float) -> Tensor:
    """As torch 2.5 computes it."""
    normed = x * x.pow(2).mean(-1, keepdim=True).add_(eps).rsqrt()
    return normed if weight is None else normed * weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_torch_that_computes_in_16_bits_is_told_from_one_that_rounds_once(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(x: Tensor, shape: list[int], weight: Tensor | None, eps: float) -> Tensor:
        return in_16_bits(x.double(), shape, weight, eps).to(x.dtype)

    for norm, due in ((once, True), (in_16_bits, False)):
        monkeypatch.setattr(torch, "rms_norm", norm)
        rounds_once.cache_clear()
        assert rounds_once(dtype) is due
    rounds_once.cache_clear()


def test_where_torch_computes_in_16_bits_rows_are_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "rounds_once", lambda dtype: False)
    seen = []

    def norm(x: Tensor, shape: list[int], weight: Tensor | None, eps: float) -> Tensor:
        seen.append(x.dtype)
        return in_16_bits(x, shape, weight, eps)

    monkeypatch.setattr(torch, "rms_norm", norm)
    x = torch.ones(3, 8, dtype=torch.bfloat16, device=META)
    assert rms_norm(x, x.new_ones(8), 1e-5).dtype == torch.bfloat16
    assert seen == [torch.float32]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_one_rounding_is_no_worse_than_two(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=draw).to(dtype) for shape in ((40, 576), (576,)))
    exact = torch.rms_norm(x.double(), (576,), weight.double(), 1e-5)
    once = torch.rms_norm(x.float(), (576,), weight.float(), 1e-5).to(dtype)  # as one kernel does
    assert (once.double() - exact).norm() < (rms_norm(x, weight, 1e-5).double() - exact).norm()
