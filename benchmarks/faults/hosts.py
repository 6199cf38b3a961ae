"""A ring over hosts in network namespaces: what it does under slow, narrow and lossy wires, and
when a wire is pulled for a while."""

import argparse
import asyncio
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults.drawn import PROMPTS
from benchmarks.faults.holders import Answer, ApiHolder, Question
from benchmarks.faults.nodes import NODE, READY, Program
from benchmarks.faults.trial import ENDS_WITHIN, gaps
from benchmarks.faults.wires import Condition, Wires, wires

DELAY, LOSS, RATE = 0.02, 0.01, 10e6
CONDITIONS = (
    Condition(),
    Condition(delay=DELAY),
    Condition(delay=DELAY, loss=LOSS),
    Condition(delay=DELAY, rate=RATE),
    Condition(delay=DELAY, loss=LOSS, rate=RATE),
)
"""The last one also has its wires pulled."""

DOWN = 10.0
"""Seconds for which a wire is pulled."""

PORT = 7000
SECURITY = ("--insecure",)
"""Nobody else is on these wires."""

PULLED_AT = 0.3
"""Part of the answer after which that happens."""


@dataclass
class Run:
    """One answer. `outage` and `resumed` as in `trial.Outcome`, where a wire was pulled."""

    condition: Condition
    what: str
    seconds: float = 0.0
    tokens: int = 0
    outage: float = 0.0
    resumed: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """As an object for JSON."""
        return {
            "condition": str(self.condition),
            "what": self.what,
            "tokens_per_second": round(self.tokens / self.seconds, 2) if self.seconds else None,
            "outage": round(self.outage, 2),
            "resumed": round(self.resumed, 2),
            "wrong": self.wrong,
        }


class Ring:
    """A stage on each host, and the holder on the first."""

    def __init__(self, hosts: Wires) -> None:
        self.hosts = hosts.hosts
        self.nodes = [self._node(stage) for stage in range(1, len(self.hosts) + 1)]
        first = self.hosts[0]
        self.holder = ApiHolder(
            self._at(1),
            f"{first.address}:{PORT}",
            keep=False,
            before=first.inside(),
            security=SECURITY,
        )

    def _at(self, stage: int) -> str:
        return f"{self.hosts[stage - 1].address}:{PORT + stage}"

    def _node(self, stage: int) -> Program:
        stages, host = len(self.hosts), self.hosts[stage - 1]
        peer = self._at(stage + 1) if stage < stages else f"{self.hosts[0].address}:{PORT}"
        return Program(
            f"stage {stage}",
            (
                *(*host.inside(), sys.executable, *NODE, "--threads", "1", *SECURITY),
                *("--stage", str(stage), "--stages", str(stages)),
                *("--listen", self._at(stage), "--peer", peer),
            ),
        )

    @property
    def programs(self) -> list[Program]:
        return [*self.nodes, self.holder.program]

    async def open(self) -> None:
        for node in self.nodes:
            await node.start()
        for node in self.nodes:
            await node.until(READY)
        await self.holder.open()

    async def close(self) -> None:
        for program in reversed(self.programs):
            await program.kill()


async def asked(ring: Ring, question: Question, run: Run, pulled: int | None) -> Answer:
    """An answer, during which the wire of host number `pulled` is down for a while."""
    answer = ring.holder.ask(question)
    began = whole = answer.asked
    if pulled is not None:
        await answer.reaches(int(PULLED_AT * question.tokens))
        began = time.monotonic()
        ring.hosts[pulled].link(up=False)
        await asyncio.sleep(DOWN)
        ring.hosts[pulled].link(up=True)
        whole = time.monotonic()
    try:
        async with asyncio.timeout(ENDS_WITHIN):
            await answer.ends()
    except TimeoutError:
        run.wrong.append(f"HUNG after {answer.count} tokens")
    if answer.error:
        run.wrong.append(answer.error)
    if pulled is not None:
        run.outage, run.resumed = gaps(answer, began, whole)
    elif answer.count > 1:
        run.tokens, run.seconds = answer.count - 1, answer.times[-1] - answer.times[0]
    run.wrong += [program.state() for program in ring.programs if not program.alive]
    return answer


async def hosts(options: argparse.Namespace) -> tuple[str, list[Run]]:
    """How packets were carried, and all runs. Raises SystemExit where it may not or cannot."""
    if os.geteuid():
        raise SystemExit("error: network namespaces are made by root: run this with sudo")
    question = Question(PROMPTS[0], options.tokens)
    made = wires(options.stages, options.seed)
    runs: list[Run] = []
    right: Answer | None = None
    try:
        made.open()
        for condition in CONDITIONS:
            made.become(condition)
            ring = Ring(made)
            try:
                await ring.open()
                last = condition is CONDITIONS[-1]
                for pulled in (None, *(range(options.stages) if last else ())):
                    run = Run(condition, "" if pulled is None else f"wire {pulled + 1} pulled")
                    runs.append(run)
                    answer = await asked(ring, question, run, pulled)
                    right = right or answer
                    if not run.wrong and answer.tokens != right.tokens:
                        run.wrong.append("ANOTHER TEXT")
                    show(run)
                    if run.wrong:
                        print("\n".join(program.state() for program in ring.programs))
            finally:
                await ring.close()
    finally:
        made.close()
    return made.how, runs


def show(run: Run) -> None:
    """A line."""
    if run.what:
        took = f"{run.outage:6.2f} s without a token, {run.resumed:5.2f} s after it was back"
    else:
        took = f"{run.tokens / run.seconds:6.1f} tokens/s" if run.seconds else "nothing"
    verdict = "WRONG: " + "; ".join(run.wrong) if run.wrong else "right"
    print(f"{run.condition!s:28s} {run.what:14s} {took}  {verdict}", flush=True)
