"""What a benchmark ran on, to be printed with its figures."""

import os
import platform
import sys
from pathlib import Path

from gardener.evaluation.machine import commit, cpu


def machine() -> dict[str, object]:
    """Processor, cores, Python, torch and commit."""
    import torch

    program = Path(sys.argv[0])
    name = program.parent.name if program.stem == "__main__" else program.stem
    command = ["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit() or "unknown",
        "command": " ".join(command),
    }
