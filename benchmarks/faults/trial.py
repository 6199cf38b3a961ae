"""One fault: ask, let something go wrong, and see what becomes of the answer."""

import asyncio
import signal
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from benchmarks.faults.drawn import TOGETHER, Blow, Fault
from benchmarks.faults.holders import Answer, ApiHolder, Holder, HttpHolder, Question
from benchmarks.faults.nodes import READY, Nodes

ENDS_WITHIN = 90.0
"""Seconds after the last blow in which an answer must have its end: far more than it takes."""

SLOWS_BY = 0.2
"""Seconds that a slow cable takes longer."""


@dataclass
class Outcome:
    """What came of a fault.

    wrong    what must not be, in sentences
    outage   seconds between two pieces of the answer around the blow
    resumed  those of them after all was whole again: a stage listens, a process goes on, a cable
             carries. 0: it had gone on before
    closed   seconds in which a new holder had the ring
    """

    fault: Fault
    how: str
    wrong: list[str] = field(default_factory=list)
    outage: float = 0.0
    resumed: float = 0.0
    closed: float | None = None
    said: int = 0

    def figures(self) -> dict[str, Any]:
        """As an object for JSON."""
        return {
            "number": self.fault.number,
            "fault": str(self.fault),
            "kind": self.fault.blow.label,
            "moment": self.fault.moment,
            "how": self.how,
            "outage": round(self.outage, 3),
            "resumed": round(self.resumed, 3),
            "closed": self.closed,
            "comments": self.said,
            "wrong": self.wrong,
        }


class Trial:
    """Strikes a ring. `right` are the answers to all questions of an undisturbed one, `prefill` the
    seconds until the first token of each prompt."""

    def __init__(
        self, nodes: Nodes, right: dict[tuple[str, float], Answer], prefill: dict[str, float]
    ) -> None:
        self.nodes, self.right, self.prefill = nodes, right, prefill

    def expected(self, question: Question) -> Answer:
        """The answer to it, whatever the policy."""
        return self.right[question.prompt, question.temperature]

    async def run(self, fault: Fault, holder: ApiHolder | HttpHolder) -> Outcome:
        """One fault while this holder is asked. Whatever it was is over at the end."""
        outcome = Outcome(fault, holder.how)
        asked = [fault.question, *([fault.beside] if fault.beside else [])]
        answers = [holder.ask(question) for question in asked]
        await self._moment(fault, answers[0])
        began = time.monotonic()
        if answers[0].finish is not None:
            outcome.wrong.append(f"it ended too early: {answers[0].error or answers[0].finish}")
        whole = await self._blows(fault, holder)
        deadline = time.monotonic() + ENDS_WITHIN
        for question, answer in zip(asked, answers, strict=True):
            outcome.wrong += await self._verdict(question, answer, deadline)
        outcome.wrong += [f"ended: {state}" for state in self.nodes.ended()]
        if not holder.program.alive:
            outcome.wrong.append(f"ended: {holder.program.state()}")
        outcome.outage, outcome.resumed = gaps(answers[0], began, whole)
        outcome.said = sum(len(answer.comments) for answer in answers)
        return outcome

    async def _blows(self, fault: Fault, holder: Holder) -> float:
        """All that goes wrong; returns when all was whole again."""
        if fault.again is None:
            return await self.strike(fault.blow, holder)
        if fault.moment == TOGETHER:
            both = (self.strike(fault.blow, holder), self.strike(fault.again, holder))
            return max(await asyncio.gather(*both))
        await self.strike(fault.blow, holder)
        await asyncio.sleep(fault.gap)
        return await self.strike(fault.again, holder)

    async def _moment(self, fault: Fault, answer: Answer) -> None:
        """Wait for when the first blow is to strike."""
        if fault.moment == "prefill":
            await asyncio.sleep(fault.share * self.prefill[fault.question.prompt])
        else:
            await answer.reaches(1 + int(fault.share * fault.question.tokens))

    async def _verdict(self, question: Question, answer: Answer, deadline: float) -> list[str]:
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                await answer.ends()
        except TimeoutError:
            return [f"HUNG after {answer.count} tokens"]
        wrong = answer.wrong(self.expected(question))
        return [wrong] if wrong else []

    async def strike(self, blow: Blow, holder: Holder) -> float:
        """Carry it out until it is over; returns when all was whole again."""
        program = self.nodes.nodes.get(blow.place, holder.program)
        match blow.kind:
            case "kill":
                await program.kill()
                await asyncio.sleep(blow.seconds)
                await program.start()
                return await program.until(READY)
            case "stop":
                program.signal(signal.SIGSTOP)
                await asyncio.sleep(blow.seconds)
                program.signal(signal.SIGCONT)
            case "cut":
                await self._cut(blow)
        return time.monotonic()

    async def _cut(self, blow: Blow) -> None:
        cable = self.nodes.cables[blow.place]
        match blow.way:
            case "drop":
                cable.drop()
            case "reset":
                cable.reset()
            case "stall":
                await cable.stall(blow.seconds)
            case "slow":
                await cable.slow(SLOWS_BY, blow.seconds)


def gaps(answer: Answer, began: float, whole: float) -> tuple[float, float]:
    """Seconds of the longest pause before a piece that came after `began`, and those of them after
    `whole`."""
    pauses = [pause for pause in pairwise([answer.asked, *answer.times]) if pause[1] > began]
    if not pauses:
        return 0.0, 0.0
    last, again = max(pauses, key=lambda pause: pause[1] - pause[0])
    return again - last, max(again - max(last, whole), 0.0)


async def take_over(old: Holder, new: ApiHolder) -> float:
    """Kill a holder while it works, and open the ring with another one at once; returns the seconds
    that this took it."""
    await new.load()
    await old.program.kill()
    await new.open()
    assert new.closed is not None
    return new.closed
