"""What decides which kernels run, beside their own shapes: the machine and the programs."""

import hashlib
import os
import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("torch", "onnxruntime", "bitsandbytes")
_SETTINGS = ("ATEN_", "DNNL_", "KMP_", "MKL_", "ONEDNN_", "ORT_", "CUBLAS_", "NVIDIA_TF32_")
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


def device_name(device: torch.device) -> str:
    """The kind of a device; two of one kind have the same kernels."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type


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
