"""What the live view costs: the same answer with and without it, in one ring on this machine.

The view draws on a pseudo-terminal that another process reads, as a terminal does. Runs with and
without take turns, and the order of each pair changes, so that a machine that grows slower or
faster meanwhile does the same to both. From the checkout:
`python -m benchmarks.view [--json] [--runs N] [--stages N] [--tokens N]
[--requests N]`.
"""

import argparse
import asyncio
import json
import os
import platform
import pty
import statistics
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import uvloop

from gardener.cli.program import ignore
from gardener.cli.view.holder_watch import HolderWatch
from gardener.decoding.policy import Bounds, make
from gardener.holder.answer import Answer, Wanted, answer
from gardener.holder.holder import Holder
from gardener.holder.prompter import Prompter
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings

PROMPT = "Write a long story about a gardener who plants a tree of tokens."

READER = """
import os, sys
while True:
    try:
        if not os.read(0, 65536):
            break
    except OSError:  # how Linux says that the other end is closed
        break
"""


@dataclass(frozen=True)
class Comparison:
    """Tokens per second of the slowest of `requests` at once, medians. `ratio`: with the view, as a
    part of without; the median over the pairs, for the two runs of a pair stand next to each other.
    `take_ms` and `show_ms`: processor time of one status on the loop, and of one frame on the
    drawing thread."""

    policy: str
    stages: int
    tokens: int
    requests: int
    runs: int
    columns: int
    rows: int
    without: float
    with_view: float
    ratio: float
    ratios: list[float]
    take_ms: float
    show_ms: float
    machine: str


class TimedWatch(HolderWatch):
    """The view, which notes the processor seconds of taking each status and of showing it."""

    takes: ClassVar[list[float]] = []
    shows: ClassVar[list[float]] = []

    def __init__(self) -> None:
        super().__init__("starting")
        for name, times in (("_take", self.takes), ("_show", self.shows)):
            setattr(self.live, name, timed(getattr(self.live, name), times))


def timed(work: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    """`work`, which adds the processor time of each call to `times`."""

    def call(*arguments: Any, **more: Any) -> Any:
        begin = time.thread_time()
        try:
            return work(*arguments, **more)
        finally:
            times.append(time.thread_time() - begin)

    return call


@contextmanager
def terminal(columns: int, rows: int) -> Iterator[None]:
    """stderr is a terminal of this size, read by a process of its own."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (rows, columns))
    reader = subprocess.Popen([sys.executable, "-c", READER], stdin=master)
    os.close(master)
    try:
        with open(slave, "w", encoding="utf-8") as stream, redirect_stderr(stream):
            yield
    finally:
        reader.wait(timeout=10)


async def measured(
    holder: Holder,
    prompter: Prompter,
    options: argparse.Namespace,
    wanted: Wanted,
    size: tuple[int, int] | None,
) -> Answer:
    """The slowest of the answers that are asked for at once; under the view, in a terminal of this
    size, if there is one."""

    async def ask() -> Answer:
        return await answer(holder, prompter, make(options.policy, Bounds(16, floor=0.2)), wanted)

    async def ask_all() -> Answer:
        answers = await asyncio.gather(*(ask() for _ in range(options.requests)))
        return min(answers, key=lambda each: (not each.error, each.figures.own_rate))

    if size is None:
        return await ask_all()
    with terminal(*size):
        view = TimedWatch()
        view.begin(holder, prompter.backend)
        async with view:
            return await ask_all()


async def compare(options: argparse.Namespace) -> Comparison:
    """All runs, in one ring."""
    settings = RingSettings(
        model=options.model,
        revision=None,
        local=options.stages,
        peer=None,
        listen="",
        dtype="float32",
        device="cpu",
        threads=None,
        quant="none",
        patience=120.0,
    )
    size = (options.columns, options.rows)
    os.environ.update(COLUMNS=str(size[0]), LINES=str(size[1]), TERM="xterm-256color")
    rates: dict[bool, list[float]] = {False: [], True: []}
    async with open_ring(settings, print_error, ignore, ignore) as ring:
        holder, prompter = ring.holder, ring.prompter
        wanted = Wanted(prompter.encode(PROMPT), options.tokens)
        await measured(holder, prompter, options, wanted, size)  # warm-up
        for run in range(options.runs):
            for view in (False, True) if run % 2 else (True, False):
                done = await measured(holder, prompter, options, wanted, size if view else None)
                if done.error:
                    raise SystemExit(done.error)
                rates[view].append(done.figures.own_rate)
    ratios = [with_it / without for without, with_it in zip(rates[False], rates[True], strict=True)]
    return Comparison(
        policy=options.policy,
        stages=options.stages,
        tokens=options.tokens,
        requests=options.requests,
        runs=options.runs,
        columns=size[0],
        rows=size[1],
        without=statistics.median(rates[False]),
        with_view=statistics.median(rates[True]),
        ratio=statistics.median(ratios),
        ratios=ratios,
        take_ms=1e3 * statistics.median(TimedWatch.takes),
        show_ms=1e3 * statistics.median(TimedWatch.shows),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    )


def print_error(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--runs", type=int, default=7, help="pairs of runs")
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=200, help="tokens of each answer, at most")
    parser.add_argument("--requests", type=int, default=1, help="asked at once")
    parser.add_argument("--policy", default="gardener")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--columns", type=int, default=160)
    parser.add_argument("--rows", type=int, default=50)
    options = parser.parse_args()
    found: dict[str, Any] = asdict(uvloop.run(compare(options)))
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{found['policy']}, {found['stages']} stages, {found['requests']} at once, "
        f"{found['columns']}x{found['rows']}: "
        f"{found['without']:.1f} tokens/s without, {found['with_view']:.1f} with the view, "
        f"ratio {found['ratio']:.3f} (median of {found['runs']} pairs); a status takes "
        f"{found['take_ms']:.2f} ms, a frame {found['show_ms']:.2f} ms"
    )


if __name__ == "__main__":
    main()
