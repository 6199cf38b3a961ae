"""What figures were measured on, to be kept with them."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("torch", "transformers", "tokenizers", "numpy", "msgspec", "msgpack", "uvloop"),
    *("onnxruntime", "onnx", "bitsandbytes", "gguf"),
)
"""Packages whose versions may change a figure. Those of quantised weights may not be there."""


def machine() -> dict[str, object]:
    """Processor, cores, memory in bytes, system."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "memory": pages,
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """The versions of Python, Gardener and what it computes with."""
    import gardener

    found = {"python": platform.python_version(), "gardener": gardener.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def cpu() -> str:
    """The processor's name, as far as it is known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str | None:
    """The commit of the checkout that this runs from, with -dirty for local changes; None outside
    of a checkout."""
    package = Path(__file__).parent.parent
    if not (package.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=False,
            cwd=package,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
