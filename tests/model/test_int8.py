"""Linear layers in 8 bits: near the float ones, and missed by nobody where torch lacks them."""

from collections.abc import Callable

import pytest
import torch

from gardener.model.kernels import int8
from gardener.model.kernels.int8 import Int8Linear, int8_pays, int8_works

needs_int8 = pytest.mark.skipif(
    not int8_works(), reason="this build of torch has no dynamic 8-bit products for this CPU"
)


@needs_int8
@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("biased", [False, True])
def test_int8_layers_give_nearly_what_float_ones_do(rows: int, biased: bool) -> None:
    draw = torch.Generator().manual_seed(rows)
    # Outputs of very different sizes: each has a scale of its own.
    sizes = torch.logspace(-3, 3, 96)
    weight = torch.randn(96, 128, generator=draw) * sizes[:, None]
    bias = torch.randn(96, generator=draw) * sizes if biased else None
    x = torch.randn(rows, 128, generator=draw)
    exact = torch.nn.functional.linear(x, weight, bias)
    error = (Int8Linear(weight, bias)(x) - exact) / (sizes * 128**0.5)
    assert error.abs().max() < 0.1
    assert error.std() < 0.02


@needs_int8
def test_a_weight_of_zeros_gives_zeros() -> None:
    assert Int8Linear(torch.zeros(8, 16), None)(torch.randn(3, 16)).count_nonzero() == 0


@needs_int8
def test_an_int8_layer_holds_a_quarter_of_the_bytes() -> None:
    assert Int8Linear(torch.randn(256, 512), None).nbytes < 0.3 * 256 * 512 * 4


@needs_int8
@pytest.mark.parametrize(("seconds", "pays"), [((0.7, 1.0), True), ((0.9, 1.0), False)])
def test_int8_layers_are_held_against_those_of_a_16_bit_checkpoint(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], pays: bool
) -> None:
    rivals: list[torch.Tensor] = []

    def linear(weight: torch.Tensor, bias: None) -> Callable[[torch.Tensor], torch.Tensor]:
        rivals.append(weight)
        return lambda x: x

    taken = iter(seconds)
    monkeypatch.setattr(int8, "untried_linear", linear)
    monkeypatch.setattr(int8, "least_seconds", lambda run: next(taken))
    assert int8_pays.__wrapped__() is pays
    (rival,) = rivals
    assert rival.dtype == torch.float32
    assert torch.equal(rival, rival.bfloat16().float())


def test_where_torch_cannot_nothing_is_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*args: object) -> None:
        raise AttributeError("quantize_per_channel")

    monkeypatch.setattr(torch, "quantize_per_channel", gone)
    monkeypatch.setattr(int8, "int8_works", int8_works.__wrapped__)
    assert not int8.int8_works()
    assert not int8_pays.__wrapped__()
