"""Devices that people name, and what these can do."""

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.device import look
from gardener.model.device.named import device_of
from gardener.model.loader import Loader


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("meta", "Tensor.item"),
        ("tpu", "Expected one of cpu, cuda"),
        ("cuda:x", "Invalid device string"),
    ],
)
def test_what_cannot_compute_is_no_device(name: str, why: str) -> None:
    with pytest.raises(UserError, match=f"device '{name}' cannot be used here: {why}") as refusal:
        device_of(name)
    assert "\n" not in str(refusal.value)


def test_a_device_without_kernels_is_found_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a build of torch for other devices: memory can be had there."""

    def add(self: Tensor, other: int) -> Tensor:
        raise RuntimeError("CUDA error: no kernel image is available for execution\nCompile with")

    assert device_of("cpu") == torch.device("cpu")
    monkeypatch.setattr(Tensor, "add", add)
    with pytest.raises(UserError, match="'cpu' cannot be used here: CUDA error: no kernel image i"):
        device_of("cpu")


def test_a_mixture_of_experts_is_refused_where_it_cannot_be_summed_up(tmp_path: Path) -> None:
    tiny.make("mixtral", tmp_path)
    architecture = Architecture.read(tmp_path)
    with pytest.raises(UserError, match=r"a mixture of experts .* float64, which mps does not com"):
        Loader(tmp_path, architecture, torch.float32, torch.device("mps"), "none")


def test_a_lack_of_memory_says_nothing_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(look, "efficient", full)
    with pytest.raises(torch.OutOfMemoryError):
        look._has_efficient.__wrapped__(torch.device("cpu"), torch.float16)
