"""Clients that ask a server all the time, some of which go away: what they wait for, whether every
answer is right, and what is left at the end."""

import asyncio
import random
import statistics
import time
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any, Protocol

import psutil

from benchmarks.sse import AnyServer, Heard, chat
from gardener.evaluation.datasets import read_conversations

ONE_LEAVES = 4
"""Of so many."""

LEFT_WITHIN = 5.0
"""Seconds after the last answer until nothing may be left of it."""

GROWTH = 0.02
"""Share by which the memory of all processes may grow from the first fifth of a run to the last."""

IDLE = ("gardener_num_requests_running", "gardener_num_requests_waiting")


@dataclass
class Right:
    """What each prompt is answered when it is asked alone: text and number of tokens."""

    new_tokens: int
    answers: dict[str, tuple[str, int]] = field(default_factory=dict)

    def fault(self, prompt: str, heard: Heard) -> str:
        """What is wrong with an answer to it; empty: nothing."""
        text, tokens = self.answers[prompt]
        if heard.status != 200 or heard.error or not heard.done:
            return f"status {heard.status}, {heard.error or 'no end'}: {prompt[:40]!r}"
        if (heard.text, heard.tokens) != (text, tokens):
            return f"another text than alone: {prompt[:40]!r}: {heard.text!r}, not {text!r}"
        if heard.finish not in ("stop", "length"):
            return f"finish reason {heard.finish}: {prompt[:40]!r}"
        return ""


async def alone(server: AnyServer, prompts: list[str], new_tokens: int) -> Right:
    """Ask each prompt while nobody else asks."""
    right = Right(new_tokens)
    for prompt in prompts:
        heard = await chat(server, prompt, new_tokens)
        if not heard.done:
            raise SystemExit(f"error: {prompt!r} alone: status {heard.status} {heard.error}")
        right.answers[prompt] = (heard.text, heard.tokens)
    return right


@dataclass
class Run:
    """What came of some clients."""

    clients: int
    seconds: float
    heard: list[Heard] = field(default_factory=list)
    left: int = 0
    faults: list[str] = field(default_factory=list)
    memory: list[list[int]] = field(default_factory=list)  # bytes of each process, again and again
    remains: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """As an object for JSON; milliseconds."""
        firsts = [each.first for each in self.heard]
        gaps = [gap for each in self.heard for gap in each.gaps]
        tokens = [each.per_token(each.tokens) for each in self.heard if each.tokens > 1]
        written = sum(each.tokens for each in self.heard)
        before, after = self.fifths()
        return {
            "clients": self.clients,
            "seconds": round(self.seconds, 1),
            "answers": len(self.heard),
            "left": self.left,
            "tokens_per_second": round(written / self.seconds, 1),
            "first_token_ms": percentiles(firsts),
            "between_pieces_ms": percentiles(gaps),
            "a_token_ms": percentiles(tokens),
            "memory_mib": {"first_fifth": before, "last_fifth": after},
            "memory_series_mib": [sum(each) >> 20 for each in self.memory],
            "flat": sum(after) <= sum(before) * (1 + GROWTH),
            "faults": self.faults,
            "remains": self.remains,
        }

    def fifths(self) -> tuple[list[int], list[int]]:
        """MiB of each process: medians of the first and the last fifth of the time."""
        fifth = max(len(self.memory) // 5, 1)
        return _medians(self.memory[:fifth]), _medians(self.memory[-fifth:])


def _medians(samples: list[list[int]]) -> list[int]:
    """MiB of each process, over samples of the bytes of all."""
    return [round(statistics.median(each) / 2**20) for each in zip(*samples, strict=True)]


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The 50th and the 95th, in milliseconds."""
    if len(seconds) < 2:
        return {"p50": 0.0, "p95": 0.0}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": round(1e3 * cuts[49], 1), "p95": round(1e3 * cuts[94], 1)}


class Watched(AnyServer, Protocol):
    """A server that can be looked into; see `served.Served`."""

    @property
    def fault(self) -> str: ...

    def processes(self) -> list[psutil.Process]: ...

    def get(self, path: str) -> str: ...


async def load(
    server: Watched, right: Right, clients: int, seconds: float = inf, most: float = inf
) -> Run:
    """`clients` of them for so long, or until they have asked `most` questions; then whatever is
    under way comes to its end."""
    processes = server.processes()
    before = _held(server, processes)
    run = Run(clients, seconds)
    begin, numbers = time.perf_counter(), count()

    async def ask(client: int) -> None:
        chance = random.Random(client)
        prompts = list(right.answers)
        while time.perf_counter() < begin + seconds and (number := next(numbers)) < most:
            prompt = chance.choice(prompts)
            if number % ONE_LEAVES == ONE_LEAVES - 1:
                pieces = chance.randrange(max(right.answers[prompt][1] // 2, 1))
                await chat(server, prompt, right.new_tokens, leave_after=pieces)
                run.left += 1
                continue
            heard = await chat(server, prompt, right.new_tokens)
            if fault := right.fault(prompt, heard):
                run.faults.append(fault)
            else:
                run.heard.append(heard)

    watching = asyncio.create_task(_watch(processes, run))
    try:
        await asyncio.gather(*map(ask, range(clients)))
    finally:
        watching.cancel()
    if server.fault:
        run.faults.append(server.fault)
    run.seconds = time.perf_counter() - begin
    run.remains = await _remains(server, processes, before)
    return run


async def _watch(processes: list[psutil.Process], run: Run) -> None:
    while True:
        run.memory.append([each.memory_info().rss for each in processes])
        await asyncio.sleep(1.0)


async def _remains(
    server: Watched, processes: list[psutil.Process], before: dict[str, float]
) -> list[str]:
    """What is more than before the run, once that had time to go away."""
    until = time.monotonic() + LEFT_WITHIN
    while True:
        held = _held(server, processes)
        more = [f"{name}: {before[name]:g}, now {now:g}" for name, now in held.items()
                if now > before[name]]  # fmt: skip
        if not more or time.monotonic() > until:
            return more
        await asyncio.sleep(0.1)


def _held(server: Watched, processes: list[psutil.Process]) -> dict[str, float]:
    """What a server must not gather: sessions, file descriptors and threads of its processes."""
    held: dict[str, float] = {}
    for place, process in enumerate(processes):
        whose = f"stage process {place}" if place else "the server"
        held[f"file descriptors of {whose}"] = process.num_fds()
        held[f"threads of {whose}"] = process.num_threads()
    for line in server.get("/metrics").splitlines():
        if line.startswith(IDLE):
            name, _, value = line.rpartition(" ")
            held[name] = float(value)
    return held


def questions(most: int | None) -> list[str]:
    """The first turns of the package's prompts; `most` of each kind."""
    return [each.turns[0] for each in read_conversations([], most)]
