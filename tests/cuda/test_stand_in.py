"""The stand-in for a GPU holds its users to what CUDA asks for."""

import os

import pytest
import torch
from stand_in.runtime import NotImitated

DEVICE = torch.device("cuda")
LAZY = os.environ.get("STAND_IN_LAZY", "0") != "0"


def stream_of_its_own() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def captured(work: object) -> torch.cuda.CUDAGraph:
    """A graph of what this does on a stream of its own."""
    assert callable(work)
    stream, graph = stream_of_its_own(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            work()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph


def test_values_are_those_of_the_processor() -> None:
    x = torch.arange(12.0).view(3, 4)
    there = x.to(DEVICE)
    assert torch.equal(there.softmax(-1).cpu(), x.double().softmax(-1).float())
    assert torch.equal((there @ there.T).cpu(), x @ x.T)
    assert there[there > 5].tolist() == x[x > 5].tolist()
    assert there.nonzero().tolist() == x.nonzero().tolist()
    assert str(there[0]) == "tensor([0., 1., 2., 3.])"


def test_new_memory_holds_no_numbers() -> None:
    assert torch.empty(5, device=DEVICE).isnan().all()
    assert torch.empty(5, dtype=torch.int64, device=DEVICE).eq(-1).all()


def test_a_graph_computes_with_what_is_there_when_it_is_launched() -> None:
    x = torch.ones(3, device=DEVICE)
    out = torch.zeros(3, device=DEVICE)
    graph = captured(lambda: out.copy_(x * 2 + 1))
    assert out.tolist() == [0, 0, 0]
    for number in (1, 2, 3):
        x.fill_(number)
        graph.replay()
        assert out.tolist() == [2 * number + 1] * 3


@pytest.mark.skipif(not LAZY, reason="copies are done at once")
def test_who_does_not_wait_reads_too_early_and_writes_too_early() -> None:
    here = torch.zeros(3).pin_memory()
    there = torch.ones(3, device=DEVICE)
    here.copy_(there, non_blocking=True)
    assert here.tolist() == [0, 0, 0]
    torch.cuda.synchronize()
    assert here.tolist() == [1, 1, 1]
    there.copy_(here, non_blocking=True)
    here.fill_(7)
    assert there.tolist() == [7, 7, 7]


@pytest.mark.skipif(not LAZY, reason="streams are done at once")
def test_another_stream_waits_only_if_it_is_told() -> None:
    x, out = torch.zeros(3, device=DEVICE), torch.zeros(3, device=DEVICE)
    torch.cuda.synchronize()
    other = stream_of_its_own()
    x.fill_(1)
    with torch.cuda.stream(other):
        out.copy_(x)
        other.synchronize()
        assert out.tolist() == [0, 0, 0]
        other.wait_stream(torch.cuda.default_stream())
        out.copy_(x)
        other.synchronize()
    assert out.tolist() == [1, 1, 1]


@pytest.mark.illegal
@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x.cpu(),
        lambda x: torch.ones(3).to(DEVICE),
        lambda x: torch.cuda.synchronize(),
    ],
)
def test_what_waits_cannot_be_captured(waits: object) -> None:
    assert callable(waits)
    x = torch.ones(3, device=DEVICE)
    with pytest.raises(RuntimeError):
        captured(lambda: waits(x + 1))
    assert (x + 1).tolist() == [2, 2, 2], "the device can be used as before"


@pytest.mark.illegal
def test_a_stream_that_is_not_joined_spoils_the_capture() -> None:
    x, other = torch.ones(3, device=DEVICE), stream_of_its_own()

    def forks(joins: bool) -> None:
        stream = torch.cuda.current_stream()
        other.wait_stream(stream)
        with torch.cuda.stream(other):
            x.add_(1)
        if joins:
            stream.wait_stream(other)

    captured(lambda: forks(True)).replay()
    assert x.tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="unjoined"):
        captured(lambda: forks(False))


def test_what_cannot_be_imitated_is_refused() -> None:
    with pytest.raises(NotImitated, match="random"):
        torch.rand(3, device=DEVICE)
    x = torch.ones(3, 3, device=DEVICE)
    with pytest.raises(NotImitated, match="written by a mask"):
        x[x > 2] = torch.ones(9, device=DEVICE)[:0]


def test_arguments_are_checked_by_torch_itself() -> None:
    x = torch.ones(3, 4, device=DEVICE)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        x @ x
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(3, 4)
    with pytest.raises(NotImplementedError):
        torch.ones(3, 4, dtype=torch.int64, device=DEVICE) @ torch.ones(
            4, 3, dtype=torch.int64, device=DEVICE
        )


def test_memory_runs_out_where_the_device_ends() -> None:
    free, total = torch.cuda.mem_get_info()
    assert free <= total
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(total + 1, dtype=torch.uint8, device=DEVICE)
