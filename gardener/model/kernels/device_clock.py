"""How long work on a device takes, as the device itself sees it where it has events."""

import time
from collections.abc import Callable

import torch

from gardener.model.device.events import event

_RUNS = 10  # that are started one after the other: the device need not wait for this machine
_ROUNDS = 3  # of which the quickest counts: others may be disturbed


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """The least time of one run among others. The first ones, which load kernels, do not count."""
    timed = _by_events if device.type == "cuda" else _by_clock
    run()
    run()
    return min(timed(run, device) for _ in range(_ROUNDS))


def _by_events(run: Callable[[], object], device: torch.device) -> float:
    begin, end = event(timed=True), event(timed=True)
    stream = torch.cuda.current_stream(device)
    begin.record(stream)
    for _ in range(_RUNS):
        run()
    end.record(stream)
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / _RUNS


def _by_clock(run: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    begin = time.perf_counter()
    for _ in range(_RUNS):
        run()
    _wait(device)
    return (time.perf_counter() - begin) / _RUNS


def _wait(device: torch.device) -> None:
    """Until the device has done all of its work."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()
