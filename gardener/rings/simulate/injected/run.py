"""Plays a case: a ring of real nodes under a virtual clock, its requests, and what goes wrong."""

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from gardener.decoding.limits import Limits
from gardener.decoding.policy import make
from gardener.draft.drafter import Drafter
from gardener.draft.ngram import NGram
from gardener.errors import GardenerError
from gardener.holder.holder import Holder
from gardener.holder.session import Session
from gardener.rings.simulate.injected import oracle
from gardener.rings.simulate.injected.case import Ask, Case
from gardener.rings.simulate.injected.injector import Injector
from gardener.rings.simulate.injected.machines import (
    Death,
    Machine,
    MachineLoop,
    MachineNetwork,
    end,
)
from gardener.rings.simulate.injected.oracle import Answer
from gardener.rings.simulate.injected.outcome import STANDS_AGAIN, Outcome, summed_up
from gardener.rings.simulate.injected.written import EOS, TAP, Foreseeing, Unforgetting, recording
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.ring import address, card, conditions
from gardener.rings.simulate.worker import Meter, VirtualWorker
from gardener.runtime.trace import Trace

CONTEXT = 512

STILL = 20.0
"""Seconds in which something must happen in a ring whose stages are all there: a token, the end of
a request, or a fault. A connection that nobody knows to be dead takes 4 s, a greeting 5 s."""

SETTLE = 2.0
"""Seconds after which what was told last has arrived everywhere, and who left is gone."""

HEARD = 0.5
"""Seconds after which the holder has heard of a loss that is seen at once."""

NOTICED = 9.0
"""Seconds after which every connection on which nothing arrives is known to be lost."""


class Play:
    """One run of a case, on a running `MachineLoop`."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.wrong: list[str] = []
        self.complaints: list[str] = []  # of the loop
        self.answers = [Answer(ask) for ask in case.asks]
        self.news: list[tuple[float, str]] = []
        self._loop = asyncio.get_running_loop()
        assert isinstance(self._loop, MachineLoop)
        self._loop.set_exception_handler(self._complain)
        usual, named = conditions(case.profile, case.model, case.stages)
        self._network = MachineNetwork(usual, case.seed, named)
        self._loop.network = self._network
        self._library = self._recorded()
        self.injector = Injector(case, self._library, self._network, self)
        self._consumers: list[asyncio.Task[None]] = []
        self._moved = 0.0  # when something happened last
        self._connecting: asyncio.Task[Any] | None = None
        self._holder: Holder | None = None
        self._leaving: asyncio.Task[None] | None = None  # a holder that leaves politely

    def _recorded(self) -> Library:
        made = [recording(ask.prompt, ask.text, ask.sampling) for ask in self.case.asks]
        return Unforgetting(made, (TAP,), frozenset({EOS}))

    def _complain(self, loop: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.complaints.append(f"the loop complains: {context['message']}: {error!r}")

    @property
    def holder(self) -> Holder:
        """That which lives."""
        assert self._holder is not None
        return self._holder

    # --- the holder --------------------------------------------------------------------------

    def come_back(self) -> None:
        """See `HolderSide`."""
        machine = self.injector.machine(0)
        leaving, self._leaving = self._leaving, None
        self._holder = machine.run(self._make)
        self._connecting = machine.run(asyncio.ensure_future, self._connect(leaving))

    async def _connect(self, leaving: "asyncio.Task[None] | None") -> None:
        if leaving is not None:
            await leaving  # its address is free then
        await self.holder.connect()

    def crash(self, how: Death) -> None:
        """See `HolderSide`."""
        self.injector.machines[0].die(how)
        self._drop_all()
        for consumer in self._consumers:
            consumer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        self.injector.in_peace(self.holder.close())

    def leave(self) -> None:
        """See `HolderSide`."""
        self._drop_all()
        begin = partial(self._begin_to_leave, self.holder)
        self._loop.call_soon(begin, context=self.injector.machines[0].context)

    def _begin_to_leave(self, holder: Holder) -> None:
        self._leaving = asyncio.ensure_future(holder.close())

    def _drop_all(self) -> None:
        """Whoever waits for an answer will have none."""
        for answer in self.answers:
            if not answer.over:
                answer.gone, answer.ended = True, self._loop.time()

    def _make(self) -> Holder:
        case = self.case
        return Holder(
            card(0, case.profile, case.model),
            self._drafters(),
            Trace(64),
            listen_at=address(0),
            peer=address(1),
            patience=1000.0,
            say=lambda line: None,
            max_requests=case.most,
            keep=case.keep,
            patience_lost=case.patience,
            news=partial(self._hear, self.injector.machines[0]),
            make_worker=lambda name: VirtualWorker(name, self._meter),
        )

    def _drafters(self) -> list[Drafter]:
        self._meter = Meter()
        made: list[Drafter] = []
        for name in self.case.drafters:
            if name == "ngram":
                made.append(NGram())
                continue
            chance = Random(f"drafter {self.case.seed}")
            seconds = chance.choice((0.001, 0.02, 0.3))
            taps = name.endswith("features")
            made.append(Foreseeing(self._library, self._meter, chance, seconds, taps))
        return made

    def _hear(self, machine: Machine, line: str) -> None:
        """The holder has news of the ring."""
        if not machine.alive:
            return
        if not line.startswith(STANDS_AGAIN):
            self.injector.broke()
        self.news.append((self._loop.time(), line))
        self._moved = self._loop.time()

    async def _consume(self, answer: Answer) -> None:
        """Ask, and read the answer; or leave in the middle."""
        ask = answer.ask
        await asyncio.sleep(ask.begins)
        if answer.gone:
            return
        try:
            async with asyncio.timeout(ask.stays), self._open(ask) as session:
                await self._read(answer, session)
        except TimeoutError:
            answer.left = True
        except GardenerError as error:
            answer.error = error
        answer.over, self._moved = True, self._loop.time()
        answer.ended = self._moved

    def _open(self, ask: Ask) -> Session:
        limits = Limits(ask.new_tokens, CONTEXT, frozenset({EOS}))
        policy = make(ask.policy, ask.bounds)
        return self.holder.open(ask.prompt, policy, limits, chunk=8, sampling=ask.sampling)

    async def _read(self, answer: Answer, session: Session) -> None:
        leaves = answer.ask.leaves
        try:
            async for piece in session:
                answer.tokens += piece.tokens
                answer.times.append(self._loop.time())
                self._moved = self._loop.time()
                if leaves is not None and len(answer.tokens) >= leaves:
                    answer.left = True
                    return
        finally:
            answer.reason = session.finish_reason

    # --- a run -------------------------------------------------------------------------------

    async def run(self) -> None:
        """All of it. What was wrong is in `wrong`."""
        for number in range(1, self.case.stages + 1):
            self.injector.start(number)
        self.come_back()
        if not await self._until(lambda: self.holder.stands, "the ring did not close"):
            return
        self.injector.arm()
        for answer in self.answers:
            self._consumers.append(self._ask(answer))
        if not await self._answered():
            return
        if await self._stands_again():
            await self._ask_once_more()
            await self._forget()
            await self._end()

    def _ask(self, answer: Answer) -> "asyncio.Task[None]":
        machine = self.injector.machines[0]
        return machine.run(asyncio.ensure_future, self._consume(answer))

    async def _until(self, ready: Callable[[], bool], what: str, most: float = STILL) -> bool:
        """Wait for this; if it takes too long, that is wrong."""
        end = self._loop.time() + most
        while not ready():
            if self._loop.time() > end:
                self.wrong.append(what)
                return False
            await asyncio.sleep(0.1)
        return True

    async def _answered(self) -> bool:
        """Wait for all answers, as long as something happens."""
        while not all(consumer.done() for consumer in self._consumers):
            await asyncio.sleep(0.1)
            if not self.injector.at_peace:
                self._moved = self._loop.time()
            most = STILL + (self.case.patience if self.injector.away else 0.0)
            if self._loop.time() - self._moved > most:
                self.wrong.append(f"nothing happens: {self.holder.condition or 'the ring stands'}")
                return False
        return True

    async def _stands_again(self) -> bool:
        """Once nothing more goes wrong."""
        self.injector.disarm()
        if not await self._until(lambda: self.injector.at_peace, "faults go on for ever", 60.0):
            return False
        await asyncio.sleep(NOTICED if self.injector.hidden else HEARD)
        self.injector.heal()
        if await self._until(lambda: self.holder.stands, "the ring does not stand again"):
            return True
        self.wrong.append(f"its condition: {self.holder.condition}")
        return False

    async def _ask_once_more(self) -> None:
        """The ring is as good as new."""
        for ask in self.case.asks[:1]:
            answer = Answer(ask)
            self.answers.append(answer)
            consumer = self._ask(answer)
            self._consumers.append(consumer)
            await self._until(consumer.done, "a request after all faults has no end")
            if not (answer.right or answer.left):
                self.wrong.append(f"a request after all faults ended: {answer.error}")

    async def _forget(self) -> None:
        """Nothing may be left of anything."""
        admission = self.holder.admission
        self.injector.machines[0].run(admission.forget, *admission.prefixes.kept)
        self.wrong += oracle.kept_at_holder(admission)
        await asyncio.sleep(SETTLE)
        for number, seat in sorted(self.injector.seats.items()):
            self.wrong += oracle.kept_at_stage(number, seat)

    async def _end(self) -> None:
        closing = [self.holder.close(), self.injector.close()]
        for each in closing:
            task = asyncio.ensure_future(each)
            if not await self._until(task.done, "the end takes too long"):
                await end(task)
        await asyncio.sleep(SETTLE)
        self.wrong += oracle.left_over(asyncio.current_task())
        assert isinstance(self._loop, MachineLoop)
        self.wrong += [f"a timer is left: {timer}" for timer in self._loop.timers]

    def outcome(self) -> Outcome:
        """What came of it."""
        injector = self.injector
        for number, answer in enumerate(self.answers, 1):
            self.wrong += [f"request {number}: {each}" for each in answer.wrong()]
        self.wrong += oracle.breaches(self._network.ends)
        self.wrong += [*oracle.unwell(injector.said), *self.complaints]
        for task in (*self._consumers, self._connecting):
            self.wrong += oracle.failed(task)
        return summed_up(
            self.case, self.wrong, self.answers, injector, self.news, self._loop.time()
        )


def play(case: Case) -> Outcome:
    """Run it to its end, on a loop of its own."""

    async def main() -> Outcome:
        run = Play(case)
        try:
            await run.run()
        except Exception as error:  # a fault of the injector, or of what it asks
            run.wrong.append(f"{type(error).__name__}: {error}")
        outcome = run.outcome()
        if outcome.wrong:  # what is stuck would keep the loop from closing
            for machine in run.injector.machines.values():
                machine.thaw()
        return outcome

    with asyncio.Runner(loop_factory=partial(MachineLoop, case.seed)) as runner:
        return runner.run(main())
