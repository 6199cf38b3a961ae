"""What decides which kernels run, beside their own shapes: the machine and the programs."""

import hashlib
import os
import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from gardener.errors import UserError

_PACKAGES = ("torch", "onnxruntime", "bitsandbytes", "nvidia-cublas", "nvidia-cublas-cu12")
_SETTINGS = (
    "ATEN_",
    "BNB_",
    "CUBLAS_",
    "CUBLASLT_",
    "DISABLE_ADDMM_CUDA_LT",
    "DNNL_",
    "KMP_",
    "MKL_",
    "NVIDIA_TF32_",
    "ONEDNN_",
    "ORT_",
    "PYTORCH_TUNABLEOP_",
    "TORCH_ALLOW_TF32_",
    "TORCH_BLAS_",
)
"""Beginnings of environment variables by which people choose kernels."""


@cache
def fingerprint() -> str:
    """Of this processor with its instructions, the packages that have kernels, our own kernels, and
    settings that choose among them. What was tried holds where it is the same."""
    known = [platform.machine(), torch.backends.cpu.get_cpu_capability(), *_processor()]
    known += [f"{name} {_version(name)}" for name in _PACKAGES]
    known += sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(_SETTINGS))
    digest = hashlib.sha256("\n".join(known).encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def has_own_kernels(device: torch.device) -> bool:
    """Whether a device computes with kernels of its own, for passes of few sizes (`model/device`);
    else it is this machine's processor."""
    return device.type != "cpu"


def device_name(device: torch.device) -> str:
    """The kind of a device, and what chooses kernels there; two of one name have the same ones."""
    if device.type != "cuda":
        return device.type
    what = torch.cuda.get_device_properties(device)
    matmul = torch.backends.cuda.matmul
    known = (
        what.name,
        f"sm {what.major}.{what.minor}",
        f"{what.multi_processor_count} multiprocessors",  # a part of a device may have fewer
        f"cuda {torch.version.cuda or torch.version.hip}",
        f"driver {_driver()}",
        f"blas {torch.backends.cuda.preferred_blas_library()}",
        f"sums of halves {matmul.allow_bf16_reduced_precision_reduction}"
        f" {matmul.allow_fp16_reduced_precision_reduction}",
        f"float32 {_precision()}",
    )
    return ", ".join(known)


def _precision() -> str:
    """How torch may round float32 before it is multiplied."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # somebody has set it by torch's older and its newer way
        return "mixed"


def forbid_tf32(device: torch.device) -> None:
    """Let float32 be computed in float32 there in this process, whatever torch was told: TF32 keeps
    10 bits of a number instead of 23. Raises UserError where only its user can."""
    if device.type != "cuda":
        return
    if os.environ.get("NVIDIA_TF32_OVERRIDE", "0") not in ("", "0"):
        raise UserError(
            f"NVIDIA_TF32_OVERRIDE={os.environ['NVIDIA_TF32_OVERRIDE']} lets {device} compute "
            "float32 with 10 bits instead of 23: unset it, or take --dtype bfloat16"
        )
    torch.set_float32_matmul_precision("highest")


def _driver() -> str:
    """The first line of what NVIDIA's driver says of itself, where the system tells it."""
    try:
        return Path("/proc/driver/nvidia/version").read_text().partition("\n")[0]
    except OSError:
        return "unknown"


def _processor() -> list[str]:
    """Its name and its instructions, where the system tells them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return [platform.processor()]
    found = (re.search(rf"^{field}\s*:.*$", text, re.M) for field in ("model name", "model"))
    flags = re.search(r"^(?:flags|Features)\s*:.*$", text, re.M)
    return [match[0] for match in (*found, flags) if match]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
