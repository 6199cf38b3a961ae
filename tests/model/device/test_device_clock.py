"""How time on a device is taken: by its own events, of many runs, once they were warm."""

import pytest
import torch

from gardener.model.kernels.device_clock import seconds


class Device:
    """Takes 20 ms for a first run, 2 ms for others, and 30 ms for each in the second round."""

    def __init__(self) -> None:
        self.runs = 0
        self.now = 0.0

    def run(self) -> None:
        self.runs += 1
        self.now += 20.0 if self.runs == 1 else 30.0 if 12 < self.runs <= 22 else 2.0


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    there = Device()

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing
            self.at: float | None = None
            self.waited = False

        def record(self, stream: str) -> None:
            assert stream == "stream of cuda:1"
            self.at = there.now

        def synchronize(self) -> None:
            self.waited = True

        def elapsed_time(self, end: "Event") -> float:
            assert end.waited
            assert self.at is not None
            assert end.at is not None
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    return there


def test_the_quickest_round_of_warm_runs_counts(device: Device) -> None:
    assert seconds(device.run, torch.device("cuda:1")) == pytest.approx(2e-3)
    assert device.runs == 32


def test_others_are_timed_by_a_clock_once_they_have_done_their_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, waits = Device(), []

    class Module:
        def synchronize(self) -> None:
            waits.append(there.runs)

    monkeypatch.setattr(torch, "get_device_module", lambda device: Module())
    monkeypatch.setattr("time.perf_counter", lambda: there.now / 1e3)
    assert seconds(there.run, torch.device("mps")) == pytest.approx(2e-3)
    assert waits == [2, 12, 12, 22, 22, 32]
