"""Whether memory and file descriptors of all processes stay as they are over many requests, one in
twenty of which meets a fault."""

import argparse
import asyncio
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil

from benchmarks.faults.drawn import SEED, Blow, Fault
from benchmarks.faults.holders import ApiHolder, Question
from benchmarks.faults.nodes import Nodes, Program
from benchmarks.faults.trial import Trial

ONE_FAULT_IN = 20
EARLY, LATE = ("kill", "stop", "kill", "drop", "reset"), ("stop", "drop", "reset", "stall")
"""Of faults, in turns: in the first half of a run, and in the second. So whoever was killed shows a
long trend, too."""

STOP, STALL, RESTART = 5.0, 5.0, 0.5
"""Seconds: the first two are longer than the silence after which a link is lost."""

PROMPTS = tuple(
    f"Name a {what} and say where it grows." for what in ("tree", "herb", "rose", "fern")
)
KV_MEMORY = ("--kv-memory", "0.05")
"""GiB for keys and values, so that what is kept of ended requests has its size early."""

WARM = 0.2
"""Part of the life of a process in which it may grow: caches fill."""

FEWEST = 20
"""Samples of a process that are worth a line."""

YOUNG = 200
"""Requests that a process must have seen to be judged: before, its memory comes to its size."""

GROWTH, SPARE = 0.02, 2.0
"""What it may grow from the first tenth after that to the last: a part, and MiB besides."""

SPARE_FILES = 1
"""The same of file descriptors: a link may be dialled anew at that moment."""


@dataclass(frozen=True)
class Sample:
    """`request` is the number of the one under way, `memory` resident MiB."""

    request: int
    memory: float
    files: int


@dataclass
class Flat:
    """Samples by process: its name and its pid, for some are started again."""

    samples: dict[tuple[str, int], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)
    faults: int = 0
    requests: int = 0
    seconds: float = 0.0

    def trends(self) -> Iterator["Trend"]:
        """Of processes that lived long enough."""
        for (name, pid), samples in self.samples.items():
            if len(samples) >= FEWEST:
                yield Trend(name, pid, samples[int(WARM * len(samples)) :])


@dataclass(frozen=True)
class Trend:
    """What a process held, once it was warm."""

    name: str
    pid: int
    samples: list[Sample]

    @property
    def memory(self) -> tuple[float, float]:
        """MiB: medians of the first and of the last tenth."""
        first, last = self._tenths()
        return (
            statistics.median(each.memory for each in first),
            statistics.median(each.memory for each in last),
        )

    @property
    def files(self) -> tuple[int, int]:
        """File descriptors: the most of both tenths."""
        first, last = self._tenths()
        return max(each.files for each in first), max(each.files for each in last)

    @property
    def slope(self) -> float:
        """MiB for a hundred requests."""
        requests = [each.request for each in self.samples]
        if len(set(requests)) < 2:
            return 0.0
        memory = [each.memory for each in self.samples]
        return 100 * statistics.linear_regression(requests, memory).slope

    @property
    def young(self) -> bool:
        """Whether it has not lived long enough to be judged."""
        return self.samples[-1].request - self.samples[0].request < (1 - WARM) * YOUNG

    @property
    def flat(self) -> bool:
        """Whether it holds no more at the end than at the beginning."""
        before, after = self.memory
        opened, open_at_last = self.files
        return after <= before * (1 + GROWTH) + SPARE and open_at_last <= opened + SPARE_FILES

    def _tenths(self) -> tuple[list[Sample], list[Sample]]:
        tenth = max(len(self.samples) // 10, 1)
        return self.samples[:tenth], self.samples[-tenth:]

    def figures(self) -> dict[str, Any]:
        """As an object for JSON."""
        return {
            "process": self.name,
            "pid": self.pid,
            "samples": len(self.samples),
            "memory_mib": [round(each, 1) for each in self.memory],
            "slope_mib_per_100_requests": round(self.slope, 3),
            "files": list(self.files),
            "flat": self.flat,
            "young": self.young,
        }


async def watch(found: Flat, programs: list[Program]) -> None:
    """A sample of each process a second, until cancelled."""
    while True:
        for program in programs:
            if not program.alive:
                continue
            try:
                process = psutil.Process(program.pid)
                memory = process.memory_info().rss / 2**20
                sample = Sample(found.requests, memory, process.num_fds())
            except psutil.Error:  # it was just killed
                continue
            found.samples[program.name, program.pid].append(sample)
        await asyncio.sleep(1.0)


def blow(number: int, options: argparse.Namespace, chance: random.Random) -> Blow:
    """Fault `number`. Only the victim is ever killed, so that the others show a long trend."""
    kinds = EARLY if 2 * number * ONE_FAULT_IN < options.requests else LATE
    kind = kinds[number % len(kinds)]
    if kind == "kill":
        return Blow("kill", options.victim, chance.uniform(0.0, RESTART))
    if kind == "stop":
        return Blow("stop", chance.randint(1, options.stages), STOP)
    return Blow("cut", chance.randint(0, options.stages), STALL if kind == "stall" else 0.0, kind)


async def flat(options: argparse.Namespace) -> Flat:
    """All requests, one after the other."""
    found, began = Flat(), time.monotonic()
    chance = random.Random(options.seed)
    nodes = Nodes(options.stages, KV_MEMORY)
    holder = ApiHolder(nodes.peer, nodes.listen, keep=True)
    watching: asyncio.Task[None] | None = None
    try:
        await nodes.start()
        await holder.open()
        right = {}
        for question in _questions(options.tokens):
            right[question.prompt, question.temperature] = answer = holder.ask(question)
            await answer.ends()
        trial = Trial(nodes, right, {})
        watching = asyncio.create_task(watch(found, [*nodes.nodes.values(), holder.program]))
        for found.requests in range(options.requests):
            question = chance.choice(_questions(options.tokens))
            await _request(found, trial, holder, question, chance, options)
            if found.wrong:
                break
    finally:
        if watching is not None:
            watching.cancel()
        await holder.program.kill()
        await nodes.close()
        found.seconds = time.monotonic() - began
    return found


async def _request(
    found: Flat,
    trial: Trial,
    holder: ApiHolder,
    question: Question,
    chance: random.Random,
    options: argparse.Namespace,
) -> None:
    """One request, and its fault if it is its turn for one."""
    number = found.requests
    if number % ONE_FAULT_IN == ONE_FAULT_IN - 1:
        struck = blow(found.faults, options, chance)
        found.faults += 1
        fault = Fault(number, question, struck, "decoding", chance.uniform(0.0, 0.8))
        outcome = await trial.run(fault, holder)
        mark = "WRONG" if outcome.wrong else "right"
        print(f"{number:5d} {mark} resumed {outcome.resumed:5.2f} s: {struck}", flush=True)
        wrong = outcome.wrong
    else:
        answer = holder.ask(question)
        await answer.ends()
        why = answer.wrong(trial.expected(question))
        wrong = [why] if why else []
    if wrong:
        states = [node.state() for node in trial.nodes.nodes.values()]
        found.wrong += [f"request {number}: {why}" for why in wrong]
        found.wrong += [*states, holder.program.state()]


def _questions(tokens: int) -> list[Question]:
    return [Question(prompt, tokens, warm, SEED) for prompt in PROMPTS for warm in (0.0, 1.0)]


def table(found: Flat) -> None:
    """A line for each process that lived long enough."""
    for trend in found.trends():
        (before, after), (opened, last) = trend.memory, trend.files
        verdict = "young" if trend.young else "flat" if trend.flat else "NOT FLAT"
        print(
            f"{trend.name:12s} pid {trend.pid:7d}  {len(trend.samples):5d} samples  "
            f"{before:7.1f} MiB, then {after:7.1f} ({trend.slope:+.2f} MiB for 100 requests)  "
            f"files {opened}, then {last}  {verdict}"
        )
    print(
        f"{found.requests + 1} requests, {found.faults} faults, {found.seconds:.0f} s; medians of "
        f"the first and the last tenth after the first {100 * WARM:.0f} % of a process's life"
    )
