"""Work on a device that is recorded once and replayed from then on: CUDA graphs.

Whoever gives work to `Graphs` promises that it reads nothing that changes but tensors at fixed
addresses, that all of its sizes follow from its key, that it never waits for the device, and that
to do it twice does no harm.
"""

import gc
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from threading import Lock
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from gardener.model.device.events import stream

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST = 96
"""Recordings that are kept; those that were used least lately go first."""


class Recording(NamedTuple):
    """Recorded work: what it gives, at addresses that stay, and how to do it again.

    What is recorded later may have its results where earlier recordings compute: `made` holds until
    anything else is replayed.

    first  what it gave when its kernels were started one by one, before it was recorded
    """

    made: Any
    replay: Callable[[], None]
    first: Any


class Recorder(Protocol):
    """How a device records work."""

    def record(self, work: Callable[[], Any]) -> Recording:
        """Do the work, and record it. Whether it was done once or twice by then is left open."""
        ...


class Graphs:
    """Recordings by key. Where something cannot be recorded, or comes to other bits when it is
    replayed, a warning says so, and nothing is recorded from then on."""

    def __init__(self, recorder: Recorder | None, most: int = MOST) -> None:
        """`recorder`: None: nothing is recorded, and all work is done anew."""
        self._recorder, self._most = recorder, most
        self._recordings: OrderedDict[Hashable, Recording] = OrderedDict()

    def __len__(self) -> int:
        return len(self._recordings)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._recordings

    @property
    def record(self) -> bool:
        """Whether work is recorded."""
        return self._recorder is not None

    def run(self, key: Hashable, work: Callable[[], T]) -> T:
        """What the work gives, until the next run. It stands where it stood before if this key was
        there before."""
        if self._recorder is None:
            return work()
        recording = self._recordings.get(key)
        if recording is None:
            return self._first_run(key, work, self._recorder)
        self._recordings.move_to_end(key)
        recording.replay()
        made: T = recording.made
        return made

    def _first_run(self, key: Hashable, work: Callable[[], T], recorder: Recorder) -> T:
        """Record the work and replay it once, which must come to the same."""
        try:
            recording = recorder.record(work)
            recording.replay()
            if not _same(recording.made, recording.first):
                raise RuntimeError("what was replayed is not what was computed")
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a kernel that cannot be recorded: do without
            self._give_up(error)
            return work()
        self._recordings[key] = recording._replace(first=None)
        if len(self._recordings) > self._most:
            self._recordings.popitem(last=False)
        made: T = recording.made
        return made

    def _give_up(self, error: RuntimeError) -> None:
        self._recorder = None
        self._recordings.clear()
        why = str(error).partition("\n")[0]
        log.warning("kernels are started one by one from now on, which is slower: %s", why)

    def forget(self, stale: Callable[[Hashable], bool] = lambda key: True) -> None:
        """Drop the recordings with such keys: some of their addresses hold something else now."""
        for key in [key for key in self._recordings if stale(key)]:
            del self._recordings[key]


def _same(made: Any, first: Any) -> bool:
    """Whether all tensors have the same numbers, or are no numbers in the same places."""
    pairs = zip(_tensors(made), _tensors(first), strict=True)
    return all(bool(((a == b) | (a != a) & (b != b)).all()) for a, b in pairs)


def _tensors(made: Any) -> Iterator[Tensor]:
    """Those of work that gives one, several or none."""
    if isinstance(made, Tensor):
        yield made
    elif isinstance(made, (list, tuple)):
        for each in made:
            yield from _tensors(each)


class CudaRecorder:
    """CUDA graphs of one device, for one thread. They share the memory for what they compute on
    their way."""

    def __init__(self, device: torch.device) -> None:
        self._stream = stream(device)
        self._device = device
        self._pool: Any = torch.cuda.graph_pool_handle()
        # The memory they share cannot be used any more once the last one of them is dropped.
        self._keeper = self._recorded(lambda: torch.zeros(1, device=device))

    def record(self, work: Callable[[], Any]) -> Recording:
        """See `Recorder`."""
        with suppress(torch.OutOfMemoryError):
            return self._recorded(work)
        # What is kept for later is not given up while recording; nor is what the error holds.
        torch.cuda.empty_cache()
        return self._recorded(work)

    @torch.inference_mode()  # whoever records first, for torch makes something once
    def _recorded(self, work: Callable[[], Any]) -> Recording:
        """Done once before, so that libraries choose and load their kernels."""
        outside = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(outside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(self._stream):
                first = work()
                self._stream.synchronize()
                with _no_garbage:
                    # Another thread, a drafter's for instance, may go on meanwhile.
                    graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                    made = self._captured(graph, work)
        finally:
            outside.wait_stream(self._stream)
        return Recording(made, graph.replay, first)

    @staticmethod
    def _captured(graph: torch.cuda.CUDAGraph, work: Callable[[], Any]) -> Any:
        """Raises what the work raises, not that the graph is spoilt by it; nor does torch warn that
        it is empty where the work came to nothing."""
        try:
            made = work()
        except BaseException:
            with suppress(RuntimeError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                graph.capture_end()
            raise
        graph.capture_end()
        return made


class _NoGarbage:
    """No garbage is collected while any thread is in here: a graph among it would be destroyed,
    which CUDA refuses while something is recorded, and spoils that."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = Lock(), 0, False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._before:
                gc.enable()


_no_garbage = _NoGarbage()


def recorder(device: torch.device, wanted: bool = True) -> Recorder | None:
    """How this device records; None: it cannot, or nobody wants it to."""
    return CudaRecorder(device) if wanted and device.type == "cuda" else None
