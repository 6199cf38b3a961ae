"""The processor time of the holder's event loop for each segment, by policy, and the two terms by
which a profile charges it (`holder` in `simulate.profile`).

The real holder runs in a simulated ring. Everything is timed that it does when a verdict, an answer
of a drafter or a timer comes, n-gram guesses included; the forward passes of a draft model are not,
since they have a thread of their own. The terms are a least-squares fit over all answers.

Run from the checkout: `python -m benchmarks.holder [--profile gpu] [--simulate 4] [--prompts 8]
[--max-new-tokens 64] [--policies NAME,...]`.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.machine import machine
from benchmarks.simulated import Variant, measure, parser
from gardener.cli.options import policies
from gardener.decoding.policy import MAIN, Bounds, make
from gardener.errors import GardenerError
from gardener.holder.holder import Holder
from gardener.holder.session import Session
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.processor import HANDLED, ChargingTrace
from gardener.rings.simulate.worker import VirtualWorker
from gardener.runtime.memory import kept
from gardener.runtime.trace import Record

ENTRIES = (
    (Holder, "judged"),
    (Holder, "depart"),
    (Session, "_answered"),
    (Session, "_do"),
)
"""The methods that callbacks of the event loop call."""


@dataclass
class Stopwatch:
    """Seconds that this thread spent in the holder, and what the holder did in them."""

    seconds: float = 0.0
    events: int = 0
    nodes: int = 0
    _inside: bool = False
    _keeping: ExitStack = field(default_factory=ExitStack)
    marks: list[tuple[float, int, int]] = field(default_factory=list)

    def entry(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed, unless a timed function calls it."""

        def timed(*args: Any, **named: Any) -> Any:
            if self._inside:
                return inner(*args, **named)
            self._inside, begin = True, time.thread_time()
            try:
                return inner(*args, **named)
            finally:
                self._inside = False
                self.seconds += time.thread_time() - begin

        return timed

    def work(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """A worker's `call`, the work of which is not timed."""

        def call(worker: VirtualWorker, done: Any, work: Callable[[], Any]) -> None:
            def elsewhere() -> Any:
                begin = time.thread_time()
                try:
                    return work()
                finally:
                    self.seconds -= (time.thread_time() - begin) if self._inside else 0.0

            inner(worker, done, elsewhere)

        return call

    def keep(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """A trace's `keep`, which counts events and nodes."""

        def counted(trace: ChargingTrace, record: Record) -> None:
            inner(trace, record)
            if record.what in HANDLED:
                self.events += 1
                self.nodes += max(record.rows, 0)

        return counted

    def mark(self) -> None:
        """Note that an answer begins, in a ring that stands (see `runtime.memory`)."""
        self._keeping.close()
        self._keeping.enter_context(kept())
        self.marks.append((self.seconds, self.events, self.nodes))


@contextmanager
def watching(watch: Stopwatch) -> Iterator[None]:
    """Time all holders within the block."""
    with watch._keeping, ExitStack() as stack:
        for owner, name in ENTRIES:
            stack.enter_context(patch.object(owner, name, watch.entry(getattr(owner, name))))
        stack.enter_context(patch.object(VirtualWorker, "call", watch.work(VirtualWorker.call)))
        stack.enter_context(patch.object(ChargingTrace, "keep", watch.keep(ChargingTrace.keep)))
        yield


def fit(marks: Sequence[tuple[float, int, int]]) -> tuple[float, float]:
    """Seconds for an event and for a node, from the state at the beginning of each answer."""
    steps = np.diff(np.array(marks), axis=0)
    found, *_ = np.linalg.lstsq(steps[:, 1:], steps[:, 0], rcond=None)
    return float(found[0]), float(found[1])


def main() -> None:
    """Measure and print."""
    made = parser(__doc__ or "")
    made.add_argument("--policies", default=",".join(MAIN))
    made.set_defaults(profile="gpu", prompts=8, max_new_tokens=64)
    arguments = made.parse_args()
    every: list[tuple[float, int, int]] = []
    print(machine())
    for name in policies(arguments.policies):
        watch = Stopwatch()

        def policy(holder: Holder, library: Library, name: str = name, watch: Any = watch) -> Any:
            watch.mark()
            return make(name, Bounds())

        try:
            with watching(watch):
                rings = measure(arguments, [Variant(name, policy)])
        except GardenerError as error:
            sys.exit(f"error: {error}")
        watch.mark()
        segments = sum(run.figures.counts.segments for runs in rings.values() for run in runs)
        event, node = fit(watch.marks)
        every += [(each[0], each[1], each[2]) for each in np.diff(np.array(watch.marks), axis=0)]
        print(
            f"{name:10} {watch.seconds / segments * 1e3:6.2f} ms a segment, "
            f"{watch.events / segments:5.1f} events and {watch.nodes / segments:6.1f} nodes; "
            f"fit {event * 1e3:.3f} ms an event, {node * 1e6:.1f} us a node"
        )
    steps = np.array(every)
    found, *_ = np.linalg.lstsq(steps[:, 1:], steps[:, 0], rcond=None)
    off = steps[:, 1:] @ found / steps[:, 0]
    print(f"holder = {{ event_ms = {found[0] * 1e3:.3f}, node_ms = {found[1] * 1e3:.4f} }}")
    print(
        f"which is {np.median(off):.2f} times what was measured, {off.min():.2f} to {off.max():.2f}"
    )


if __name__ == "__main__":
    main()
