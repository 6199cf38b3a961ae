"""A trial finds kernels whose bits tell of the pass, and those whose bits do not."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from gardener.model.attention import Scoring
from gardener.model.device.look import Choose, Kernel, by_hand
from gardener.model.device.look_trial import spread_of_attention

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def spread(dtype: torch.dtype, kernel: Kernel, group: int = 3) -> float:
    def choose(device: torch.device, dtype: torch.dtype, scoring: Scoring) -> Kernel:
        return kernel

    planted: Choose = choose
    return spread_of_attention(2, group, 16, dtype, CPU, choose=planted)


def summed(scores: Tensor, v: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
    """In float32, in the one order or in the other."""
    lse = torch.logsumexp(scores.double(), -1)
    terms = torch.exp(scores - lse.unsqueeze(-1).float()).unsqueeze(-1) * v.float().unsqueeze(2)
    return (terms.flip(3) if backwards else terms).sum(3).double(), lse


def products(q: Tensor, k: Tensor, bias: Tensor, scale: float) -> Tensor:
    return (q.double() @ k.double().transpose(-1, -2) * scale + bias).float()


def from_32_lines_on(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    return summed(products(q, k, bias, scale), v, q.shape[2] >= 32)


def by_batch(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return summed(products(q, k, bias, scale), v, q.shape[0] > 64)


def by_strides(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """What was put in order first stands more closely."""
    return summed(products(q, k, bias, scale), v, k.stride(1) < 1024 * 16)


def leaky(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """What is masked is seen a little: so it matters which slots those are."""
    return by_hand(None, q, k, v, bias.clamp(min=-12.0), scale)


def in_float32(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Keeps to one order of sums."""
    return summed(products(q, k, bias, scale), v, False)


def no_number(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """A chunk that is masked altogether divides by nothing."""
    return by_hand(None, q, k, v, bias.double().masked_fill(bias < 0, -math.inf), scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "softcap"), [((2, 3), None), ((1, 4), 5.0), ((3, 1), None)])
def test_the_kernel_by_hand_tells_nothing(
    heads: tuple[int, int], softcap: float | None, dtype: torch.dtype
) -> None:
    assert spread_of_attention(*heads, 16, dtype, CPU, softcap) == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_order_of_sums_is_enough(dtype: torch.dtype) -> None:
    assert spread(dtype, in_float32) == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [from_32_lines_on, by_batch, by_strides, leaky])
def test_kernels_that_tell_of_the_pass_are_found_out(kernel: Kernel, dtype: torch.dtype) -> None:
    found = spread(dtype, kernel)
    assert 0.0 < found < 0.1


@pytest.mark.parametrize("kernel", [from_32_lines_on])
def test_few_heads_are_enough_to_tell(kernel: Kernel) -> None:
    assert spread(torch.bfloat16, kernel, group=1) > 0.0


def test_what_is_no_number_is_as_far_off_as_can_be() -> None:
    assert spread(torch.float32, no_number) == 1.0


def test_the_trial_takes_softcaps_from_its_caller() -> None:
    asked: list[Scoring] = []

    def choose(device: torch.device, dtype: torch.dtype, scoring: Scoring) -> Kernel:
        asked.append(scoring)
        return partial(by_hand, scoring.softcap)

    spread_of_attention(1, 1, 16, torch.float32, CPU, 7.0, choose)
    assert set(asked) == {Scoring(0.25, 7.0)}
