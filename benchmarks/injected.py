"""Rings in which things go wrong, by the thousand, under a virtual clock: texts right or an honest
error, no hang, nothing left.

    python -m benchmarks.injected --runs 10000 --seed 1
    python -m benchmarks.injected --one 4711
    python -m benchmarks.injected --boundaries

Each run is a case (`rings/simulate/injected/case.py`) that its seed reproduces. `--one` plays one
and tells all of it. `--boundaries` lets each machine of small rings die in each way before each of
its writes, and before each piece that it hears, of a short request; and again while the ring is
broken. Ends with 1 if anything was wrong.
"""

import argparse
import contextlib
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from gardener.rings.simulate.injected.boundaries import at_each_boundary
from gardener.rings.simulate.injected.case import Case, draw
from gardener.rings.simulate.injected.faults import CRASHES, KINDS, Fault, When
from gardener.rings.simulate.injected.outcome import Outcome
from gardener.rings.simulate.injected.run import play


def told(outcome: Outcome) -> str:
    """A case, and what was wrong with what came of it."""
    wrong = [f"  wrong: {each}" for each in outcome.wrong]
    return "\n".join((str(outcome.case), *wrong))


def everything(outcome: Outcome) -> str:
    """All that there is to say of one run."""
    lines = [f"  {at:9.3f} s: {who}" for at, who in outcome.story]
    figures = (
        f"  {outcome.right} right, {outcome.lost} lost, {outcome.other} left; "
        f"{outcome.seconds:.6f} virtual seconds, digest {outcome.digest}"
    )
    return "\n".join((told(outcome), *lines, figures))


class Tally:
    """What came of all runs, by kind of fault: a run counts for each kind that took place."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.right: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.other: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self.breaks: Counter[str] = Counter()
        self.goes_on: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, outcome: Outcome) -> None:
        """One more run."""
        self.struck.update(outcome.struck)
        for kind in {"all", *(outcome.struck or ["none"])}:
            self.runs[kind] += 1
            self.right[kind] += outcome.right
            self.lost[kind] += outcome.lost
            self.other[kind] += outcome.other
            self.restarts[kind] += outcome.restarts
            self.breaks[kind] += outcome.breaks
        self.struck["all"] += len(outcome.struck)
        for kind, seconds in outcome.goes_on:
            self.goes_on[kind].append(seconds)
            self.goes_on["all"].append(seconds)

    def lines(self) -> Iterable[str]:
        """A table in Markdown."""
        yield (
            "| fault | runs | faults | ring broke | restarts | right | honest errors | left "
            "| goes on, median s | max s |"
        )
        yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
        for kind in ("all", "none", *KINDS):
            seconds = self.goes_on[kind]
            times = f"{statistics.median(seconds):.2f} | {max(seconds):.2f}" if seconds else "- | -"
            yield (
                f"| {kind} | {self.runs[kind]} | {self.struck[kind]} | {self.breaks[kind]} "
                f"| {self.restarts[kind]} | {self.right[kind]} | {self.lost[kind]} "
                f"| {self.other[kind]} | {times} |"
            )


def run_all(outcomes: Iterable[Outcome], progress: int) -> int:
    """Play them, or as many as there are until Ctrl-C; returns how many were wrong."""
    tally, wrong, begin = Tally(), 0, time.monotonic()
    virtual = 0.0
    with contextlib.suppress(KeyboardInterrupt):
        for number, outcome in enumerate(outcomes, 1):
            tally.add(outcome)
            virtual += outcome.seconds
            if outcome.wrong:
                wrong += 1
                print(told(outcome), flush=True)
            if number % progress == 0:
                print(f"{number} runs, {wrong} wrong", file=sys.stderr, flush=True)
    print("\n".join(tally.lines()))
    wall, cores = time.monotonic() - begin, time.process_time()
    print(
        f"\n{tally.runs['all']} runs, {wrong} wrong; {virtual:.0f} virtual s in {wall:.0f} s, "
        f"{cores:.0f} s of one core"
    )
    return wrong


def boundaries() -> Iterator[Case]:
    """Deaths of each kind in rings of one to three; then second ones, in rings that are broken."""
    for stages in (1, 2, 3):
        for kind in CRASHES:
            yield from at_each_boundary(stages, kind)
    for stages in (1, 2, 3):
        for lost in range(1, stages + 1):
            first = Fault("crash", lost, 0.3, When("send", 6, lost))
            yield from at_each_boundary(stages, first=first)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--one", type=int, metavar="SEED", help="play this one, and tell all of it")
    parser.add_argument("--boundaries", action="store_true", help="die at each of them")
    options = parser.parse_args()
    if options.one is not None:
        outcome = play(draw(options.one))
        print(everything(outcome))
        return bool(outcome.wrong)
    if options.boundaries:
        return bool(run_all(map(play, boundaries()), 100))
    seeds = range(options.seed, options.seed + options.runs)
    return bool(run_all((play(draw(seed)) for seed in seeds), 500))


if __name__ == "__main__":
    sys.exit(main())
