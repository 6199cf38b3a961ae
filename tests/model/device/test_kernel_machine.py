"""What trials on a device are kept by, and how float32 is computed there."""

from types import SimpleNamespace

import pytest
import torch

from gardener.errors import UserError
from gardener.model.kernels import machine

CUDA = torch.device("cuda")
H100 = SimpleNamespace(name="NVIDIA H100", major=9, minor=0, multi_processor_count=132)


def test_a_device_is_named_with_all_that_chooses_its_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: H100)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(machine, "_driver", lambda: "580.1")
    whole = machine.device_name(CUDA)
    assert whole.startswith(
        "NVIDIA H100, sm 9.0, 132 multiprocessors, cuda 13.0, driver 580.1, blas"
    )
    part = SimpleNamespace(**{**vars(H100), "multi_processor_count": 16})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: part)
    assert machine.device_name(CUDA) != whole
    assert machine.device_name(torch.device("mps")) == "mps"


@pytest.fixture
def _precision() -> object:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("_precision")
def test_float32_keeps_its_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    torch.set_float32_matmul_precision("high")
    machine.forbid_tf32(torch.device("mps"))
    assert torch.get_float32_matmul_precision() == "high"
    machine.forbid_tf32(CUDA)
    assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    machine.forbid_tf32(CUDA)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(UserError, match="NVIDIA_TF32_OVERRIDE=1 lets cuda compute float32 with"):
        machine.forbid_tf32(CUDA)


@pytest.mark.usefixtures("_precision")
def test_what_was_tried_with_fewer_bits_is_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: H100)
    names = []
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        names.append(machine.device_name(CUDA))
    monkeypatch.setattr(torch, "get_float32_matmul_precision", _mixed)
    names.append(machine.device_name(CUDA))
    assert [name.rpartition(", ")[2] for name in names] == [
        "float32 highest",
        "float32 high",
        "float32 mixed",
    ]


def _mixed() -> str:
    """As torch does it once it was set in two ways."""
    raise RuntimeError("PyTorch is checking the matmul precision without a specific backend name")


@pytest.mark.parametrize(
    "setting",
    [
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        "DISABLE_ADDMM_CUDA_LT",
        "PYTORCH_TUNABLEOP_ENABLED",
        "BNB_CUDA_VERSION",
    ],
)
def test_settings_that_choose_kernels_are_in_the_fingerprint(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(setting, raising=False)
    without = machine.fingerprint.__wrapped__()
    monkeypatch.setenv(setting, "1")
    assert machine.fingerprint.__wrapped__() != without
