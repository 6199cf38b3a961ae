"""`CudaRecorder`, where what it calls is as strict as CUDA."""

import gc
import logging
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gardener.model.device.graphs import CudaRecorder, Graphs

DEVICE = torch.device("cuda")
MIB = 1 << 20


@pytest.fixture
def x() -> Tensor:
    return torch.ones(1000, device=DEVICE)


def test_replays_compute_anew_and_share_their_memory(x: Tensor) -> None:
    graphs = Graphs(CudaRecorder(DEVICE))
    with torch.inference_mode():
        for number in (1, 2, 3):
            x.fill_(number)
            for key in (5, 6):
                made = graphs.run(key, lambda key=key: (x + key) * 2)  # type: ignore[misc]
                assert made.eq((number + key) * 2).all()
    assert len(graphs) == 2


def test_memory_that_is_kept_is_given_up_for_a_recording() -> None:
    """It is not, while recording. (Nor ever again in a process where a recording has failed, for
    torch takes that to be still under way: so this stands before the next test.)"""
    recorder = CudaRecorder(DEVICE)
    x = torch.ones(MIB, device=DEVICE)
    torch.cuda.empty_cache()
    kept = [torch.empty(40 * MIB, dtype=torch.uint8, device=DEVICE) for _ in range(4)]
    del kept
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    most = torch.cuda.memory_reserved() + 10 * MIB
    try:
        torch.cuda.set_per_process_memory_fraction(most / total)
        made = recorder.record(lambda: torch.cat([x] * 8) + 1)
        made.replay()
        assert made.made.eq(2).all()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.illegal
@pytest.mark.parametrize(
    "work",
    [
        lambda x: x * float((x + 1).max().item()),
        lambda x: x + torch.ones(1000).to(DEVICE),
        lambda x: x + len((x + 1).nonzero()),
    ],
    ids=["a number", "pageable memory", "a size"],
)
def test_what_cannot_be_recorded_is_done_without(
    work: Callable[[Tensor], Tensor], x: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    """And the device is as good as before."""
    graphs = Graphs(CudaRecorder(DEVICE))
    with torch.inference_mode():
        due = work(x)
        for _ in range(2):
            assert torch.equal(graphs.run("key", lambda: work(x)), due)
    assert not graphs.record
    [record] = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "one by one" in record.message
    torch.cuda.empty_cache()
    again = Graphs(CudaRecorder(DEVICE))
    with torch.inference_mode():
        assert again.run("key", lambda: x + 1).eq(2).all()
    assert len(again) == 1


def test_garbage_with_a_graph_in_it_does_not_spoil_what_is_recorded(x: Tensor) -> None:
    recorder, times = CudaRecorder(DEVICE), []

    def littered() -> Tensor:
        """The second time, which is recorded, there is garbage to collect."""
        times.append(1)
        if len(times) == 2:
            gc.set_threshold(1)
        return [x + 1 for _ in range(20) if [[]]][-1]

    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(1_000_000)
    circle: list[object] = [recorder.record(lambda: x + 1)]
    circle.append(circle)
    del circle
    try:
        made = recorder.record(littered)
    finally:
        gc.set_threshold(*before)
    made.replay()
    assert made.made.eq(2).all()


def test_two_threads_record_at_once(x: Tensor) -> None:
    wrong: list[object] = []

    def record(number: int) -> None:
        graphs = Graphs(CudaRecorder(DEVICE))
        source = torch.zeros(100, device=DEVICE)
        with torch.inference_mode():
            for key in range(40):
                made = graphs.run(key % 13, lambda: source + key % 13 + number)  # noqa: B023
                if not made.eq(key % 13 + number).all():
                    wrong.append((number, key))
        if not graphs.record:
            wrong.append(number)

    threads = [threading.Thread(target=record, args=(number,)) for number in (1, 2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
