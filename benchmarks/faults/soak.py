"""Many faults one after the other, on one ring."""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.drawn import PROMPTS, Fault, draw, questions
from benchmarks.faults.holders import Answer, ApiHolder, HttpHolder, Question
from benchmarks.faults.nodes import Nodes
from benchmarks.faults.trial import Outcome, Trial, take_over
from gardener.keys.folder import init

SPELL = 20
"""Faults after which another holder takes the ring: by the API with kept prefixes and without, and
by HTTP, in turns."""

COLUMNS = ("what", "faults", "wrong", "outage p50", "max", "resumed p50", "p90", "max")
PROMISED = 2.0
"""Seconds from a stage that listens again to the next token: the median."""


@dataclass
class Soak:
    """What came of them."""

    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def wrong(self) -> list[Outcome]:
        return [each for each in self.outcomes if each.wrong]

    def groups(self) -> Iterator[tuple[str, list[Outcome]]]:
        """By what they are counted under, then by the moment."""
        found: dict[str, list[Outcome]] = defaultdict(list)
        for each in self.outcomes:
            found[each.fault.blow.label].append(each)
        for each in self.outcomes:
            found[f"while {each.fault.moment}"].append(each)
            found[f"asked by {each.how}"].append(each)
        yield from sorted(found.items())
        yield "all", self.outcomes


async def reference(holder: ApiHolder, tokens: int) -> dict[tuple[str, float], Answer]:
    """What an undisturbed ring answers, by prompt and temperature. Raises SystemExit."""
    asked = [(question, holder.ask(question)) for question in questions(tokens)]
    right = {}
    for question, answer in asked:
        await answer.ends()
        if answer.error or answer.count != tokens:
            raise SystemExit(f"error: without any fault: {answer.error or answer.count}")
        right[question.prompt, question.temperature] = answer
    return right


async def prefills(holder: ApiHolder) -> dict[str, float]:
    """Seconds until the first token, by prompt."""
    found = {}
    for prompt in PROMPTS:
        answer = holder.ask(Question(prompt, 1))
        await answer.ends()
        found[prompt] = answer.times[0] - answer.asked
    return found


class Run:
    """The ring, and whoever asks it now."""

    def __init__(self, nodes: Nodes, security: Sequence[str]) -> None:
        """`security`: options that all who are in the ring get."""
        self.nodes, self._security = nodes, security
        self.holder: ApiHolder | HttpHolder | None = None
        self._spell = -1

    async def ready(self, number: int) -> ApiHolder | HttpHolder:
        """The holder for this fault: in each spell another one; a new one if it has ended."""
        if self.holder is not None and number // SPELL == self._spell:
            return self.holder
        await self.leave()
        self._spell = number // SPELL
        self.holder = self._made()
        await self.holder.open()
        return self.holder

    def _made(self) -> ApiHolder | HttpHolder:
        if self._spell % 3 == 2:
            return HttpHolder(self.nodes.peer, self.nodes.listen, self._security)
        return self.by_api(keep=self._spell % 3 == 0)

    def by_api(self, keep: bool) -> ApiHolder:
        """A holder that is not open yet."""
        nodes = self.nodes
        return ApiHolder(nodes.peer, nodes.listen, keep, security=self._security)

    async def leave(self) -> None:
        """End the present holder."""
        if self.holder is not None:
            await self.holder.program.kill()
        self.holder = None

    async def replaced(self, trial: Trial, fault: Fault) -> Outcome:
        """Kill the holder in the middle of an answer, let a new one take over, and ask again."""
        assert self.holder is not None
        answer = self.holder.ask(fault.question)
        right = trial.expected(fault.question)
        await answer.reaches(1 + int(fault.share * right.count))
        new = self.by_api(keep=True)
        closed = await take_over(self.holder, new)
        if not isinstance(self.holder, ApiHolder):
            self._spell = -1  # the next fault gets the server that this spell asks
        self.holder = new
        outcome = Outcome(fault, new.how, closed=closed)
        again = new.ask(fault.question)
        await again.ends()
        outcome.wrong += [why for why in [again.wrong(right)] if why]
        outcome.wrong += [f"ended: {state}" for state in self.nodes.ended()]
        return outcome

    def states(self) -> str:
        """Of all processes."""
        programs = [*self.nodes.nodes.values()]
        if self.holder is not None:
            programs.append(self.holder.program)
        return "\n".join(program.state() for program in programs)

    async def recover(self) -> None:
        """After something went wrong, begin again with a ring that is whole."""
        await self.leave()
        for node in self.nodes.nodes.values():
            await node.kill()
        await self.nodes.mend()


async def soak(options: argparse.Namespace) -> Soak:
    """All faults that were asked for."""
    with tempfile.TemporaryDirectory() as folder:
        return await struck(options, secured(options, Path(folder)))


def secured(options: argparse.Namespace, folder: Path) -> Sequence[str]:
    """Options for all in the ring, whose keys are made in this folder if it is to have some."""
    if not options.keys:
        return ()
    init(folder, "faults", options.stages, spares=0, days=1)
    return ("--keys", str(folder))


async def struck(options: argparse.Namespace, security: Sequence[str]) -> Soak:
    """The same with these options for all in the ring."""
    found, began = Soak(), time.monotonic()
    nodes = Nodes(options.stages, security)
    run = Run(nodes, security)
    try:
        await nodes.start()
        run.holder = first = run.by_api(keep=False)
        await first.open()
        trial = Trial(nodes, await reference(first, options.tokens), await prefills(first))
        first_tokens = ", ".join(f"{seconds:.2f} s" for seconds in trial.prefill.values())
        print(f"the first token of each prompt alone: {first_tokens}", flush=True)
        await run.leave()
        for number in chosen(options):
            fault = draw(options.seed, number, options.stages, options.tokens, options.kinds)
            outcome = await one(run, trial, fault)
            found.outcomes.append(outcome)
            report(outcome, options, run)
            if outcome.wrong:
                await run.recover()
    finally:
        await run.leave()
        await nodes.close()
        found.seconds = time.monotonic() - began
    return found


def chosen(options: argparse.Namespace) -> Sequence[int]:
    """The numbers of the faults."""
    return range(options.faults) if options.only is None else options.only


async def one(run: Run, trial: Trial, fault: Fault) -> Outcome:
    """One fault. What ends the ring is told as what is wrong."""
    try:
        holder = await run.ready(fault.number)
        if fault.blow.kind == "holder":
            return await run.replaced(trial, fault)
        return await trial.run(fault, holder)
    except SystemExit as error:
        return Outcome(fault, "" if run.holder is None else run.holder.how, wrong=[str(error)])


def report(outcome: Outcome, options: argparse.Namespace, run: Run) -> None:
    """A line as it goes, and all there is to know if something is wrong, or if it is asked for."""
    fault = outcome.fault
    took = f"resumed {outcome.resumed:5.2f} s, outage {outcome.outage:5.2f} s"
    if outcome.closed is not None:
        took = f"the new holder had its ring after {outcome.closed:.2f} s"
    verdict = "WRONG" if outcome.wrong else "right"
    print(f"{fault.number:4d} {verdict} {outcome.how:4s} {took}: {fault}", flush=True)
    if outcome.wrong:
        print(f"     again: --seed {options.seed} --only {fault.number}")
        for why in outcome.wrong:
            print(f"     {why}")
    if outcome.wrong or options.verbose:
        print(run.states(), flush=True)


def table(found: Soak) -> None:
    """Seconds, by what went wrong, by when, and by who asked."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for name, group in found.groups():
        outages = [each.outage for each in group if not each.wrong and each.closed is None]
        resumed = [each.resumed for each in group if not each.wrong and each.closed is None]
        figures: tuple[str, ...] = ("-",) * 5
        if outages:
            cells = (
                *(statistics.median(outages), max(outages)),
                *(statistics.median(resumed), _p90(resumed), max(resumed)),
            )
            figures = tuple(f"{cell:.2f}" for cell in cells)
        rows.append((name, str(len(group)), str(sum(bool(each.wrong) for each in group)), *figures))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = zip(row, widths, strict=True)
        print(first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest), sep="  ")
    closed = [each.closed for each in found.outcomes if each.closed is not None]
    if closed:
        median = statistics.median(closed)
        print(f"new holders had the ring after {median:.2f} s (median), {max(closed):.2f} s (most)")
    print(f"seconds; {len(found.outcomes)} faults in {found.seconds:.0f} s")


def _p90(seconds: list[float]) -> float:
    return sorted(seconds)[(len(seconds) * 9) // 10]
