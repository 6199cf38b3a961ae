"""What a device is, how long work takes on it, and how fast it reads its memory."""

import time
from collections.abc import Callable
from math import inf
from typing import Any

import torch

from gardener.model.device.events import event, record

BYTES = 2**31
"""That are read once: no cache of a device holds a tenth of them."""

LASTING = 0.3
"""Seconds for which they are read again and again: a device that has slept is slow at first."""


def facts(device: torch.device) -> dict[str, Any]:
    """For people."""
    found: dict[str, Any] = {"device": str(device), "torch": torch.__version__}
    if device.type == "cuda":
        of = torch.cuda.get_device_properties(device)
        found |= {
            "name": of.name,
            "memory": of.total_memory,
            "capability": f"{of.major}.{of.minor}",
            "multiprocessors": of.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return found


def bandwidth(device: torch.device, size: int = BYTES, lasting: float = LASTING) -> float:
    """Bytes per second that are read from the memory of a device: the best of all sums of float32
    numbers in `lasting` seconds, and of the largest ones, of which none writes anything."""
    numbers = torch.ones(size // 4, device=device)
    ways: tuple[Callable[[], object], ...] = (numbers.sum, numbers.amax)
    for way in ways:
        way()  # kernels are loaded when they are first called
    best, end = inf, time.perf_counter() + lasting
    while True:
        best = min(best, *(seconds(device, way) for way in ways))
        if time.perf_counter() >= end:
            return size / best


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """What the device takes for it, by its own clock where it has one."""
    if device.type == "cuda":
        begin, end = event(timed=True), event(timed=True)
        record(begin, device)
        work()
        record(end, device)
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3
    wait(device)
    at = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - at


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def forget_peak(device: torch.device) -> None:
    """Of memory, from now on; and what nobody holds any more is given back."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int:
    """The most bytes that tensors have taken on the device; 0: it does not tell."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def reserved(device: torch.device) -> int:
    """The most bytes that torch has taken of the device, graphs among them; 0: it does not tell."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
