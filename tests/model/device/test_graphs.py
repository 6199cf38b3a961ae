"""Recordings by key, and how CUDA is told to make them."""

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from recorders import Replaying
from torch import Tensor

from gardener.model.device.graphs import CudaRecorder, Graphs, Recording, recorder

CPU = torch.device("cpu")


def test_work_is_recorded_once_and_replayed_at_the_same_address() -> None:
    replaying, source = Replaying(), torch.zeros(3)
    made = Graphs(replaying)
    first = made.run("a", lambda: source * 2)
    source.fill_(4.0)
    again = made.run("a", lambda: source * 2)
    assert again is first
    assert first.tolist() == [8.0] * 3
    assert (replaying.recordings, replaying.replays) == (1, 2)


def test_without_a_recorder_work_is_done_anew() -> None:
    source = torch.zeros(3)
    made = Graphs(None)
    assert not made.record
    assert made.run("a", lambda: source + 1) is not made.run("a", lambda: source + 1)
    assert len(made) == 0


def test_what_was_used_least_lately_goes_first() -> None:
    replaying = Replaying()
    made = Graphs(replaying, most=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        made.run(key, lambda: torch.zeros(1))
    assert len(made) == 2
    assert replaying.recordings == 4  # b was gone


def test_what_is_stale_is_forgotten() -> None:
    replaying = Replaying()
    made = Graphs(replaying)
    for key in ("a", "b"):
        made.run(key, lambda: torch.zeros(1))
    made.forget(lambda key: key == "a")
    for key in ("a", "b"):
        made.run(key, lambda: torch.zeros(1))
    assert replaying.recordings == 3
    made.forget()
    assert len(made) == 0


def test_what_cannot_be_recorded_is_done_one_by_one_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refusing:
        def record(self, work: Callable[[], Any]) -> Recording:
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    made = Graphs(Refusing())
    assert made.run("a", lambda: torch.ones(1)).tolist() == [1.0]
    assert not made.record
    assert made.run("a", lambda: torch.ones(1)).tolist() == [1.0]
    assert caplog.messages == [
        "kernels are started one by one from now on, which is slower: operation not permitted when "
        "stream is capturing"
    ]


def test_work_that_is_replayed_to_other_bits_is_done_one_by_one_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stale:
        """As if a kernel read an address that holds something else by now."""

        def record(self, work: Callable[[], Any]) -> Recording:
            first, made = work(), work()
            return Recording(made, lambda: made[1].view(-1)[-1:].add_(2.0**-20), first)

    made = Graphs(Stale())

    def work() -> list[Tensor]:
        return [torch.ones(2), torch.ones(2, 2)]

    assert [each.tolist() for each in made.run("a", work)] == [[1.0] * 2, [[1.0] * 2] * 2]
    assert not made.record
    assert caplog.messages == [
        "kernels are started one by one from now on, which is slower: what was replayed is not "
        "what was computed"
    ]


def test_no_numbers_in_the_same_places_are_the_same(caplog: pytest.LogCaptureFixture) -> None:
    source = torch.tensor([1.0, torch.nan, torch.inf])
    made = Graphs(Replaying())
    made.run("a", lambda: (source * 2, source > 1))
    assert made.record
    assert not caplog.messages


def test_recorded_work_that_waits_is_noticed_by_the_stand_in() -> None:
    numbers = torch.zeros(1)
    with pytest.raises(AssertionError, match="waits for the device"):
        Graphs(Replaying()).run("a", lambda: torch.full((1,), numbers.item()))


def test_who_records() -> None:
    assert recorder(CPU) is None
    assert recorder(torch.device("mps")) is None
    assert recorder(torch.device("cuda"), wanted=False) is None


class FakeCuda:
    """Tells what is asked of CUDA, in turn."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.end: Callable[[], object] = lambda: None

    def graph_pool_handle(self) -> str:
        return "pool"

    def Stream(self, device: torch.device) -> "FakeCuda":  # noqa: N802, as torch calls it
        return self

    def current_stream(self, device: torch.device) -> "FakeCuda":
        return self

    @contextmanager
    def stream(self, stream: object) -> Any:
        self.log.append("enter")
        yield
        self.log.append("leave")

    def wait_stream(self, other: object) -> None:
        self.log.append("wait")

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def CUDAGraph(self) -> "FakeCuda":  # noqa: N802
        return self

    def capture_begin(self, pool: str, capture_error_mode: str) -> None:
        self.log.append(f"begin {pool} {capture_error_mode}")

    def capture_end(self) -> None:
        self.log.append("end")
        self.end()

    def replay(self) -> None:
        self.log.append("replay")


def test_cuda_records_on_a_stream_of_its_own_after_a_first_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr(torch, "cuda", cuda)

    def work() -> str:
        cuda.log.append("work")
        return "made"

    monkeypatch.setattr(torch, "zeros", lambda *size, device: "kept")
    made = CudaRecorder(torch.device("cuda:1"))
    assert cuda.log.count("end") == 1, "one is kept, or the memory they share could not be used"
    cuda.log.clear()
    recording = made.record(work)
    recording.replay()
    assert recording.made == "made"
    assert cuda.log == [
        *("wait", "enter", "work", "synchronize", "begin pool thread_local", "work", "end"),
        *("leave", "wait", "replay"),
    ]


def invalid() -> None:
    raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def empty() -> None:
    warnings.warn("The CUDA Graph is empty", stacklevel=1)


@pytest.mark.parametrize("end", [invalid, empty])
def test_of_work_that_cannot_be_recorded_its_own_error_is_told(
    end: Callable[[], object], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not what torch says of the graph when it is ended: that it is invalid, or empty."""
    cuda = FakeCuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(torch, "zeros", lambda *size, device: "kept")
    graphs = Graphs(CudaRecorder(torch.device("cuda")))
    cuda.end = end

    def work() -> str:
        if cuda.log[-1].startswith("begin"):
            raise RuntimeError("this waits for the device")
        return "made"

    assert graphs.run("a", work) == "made"
    assert [each.rpartition(": ")[2] for each in caplog.messages] == ["this waits for the device"]
    assert cuda.log[-2:] == ["end", "wait"]
