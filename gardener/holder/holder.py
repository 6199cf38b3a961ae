"""Stage 0: drives a decoding, its drafter and the ring.

A verdict is handled in the callback in
which it arrives, and what follows from it is sent before that callback returns: nothing waits for a
task to be scheduled. The consumer of the text reads from a queue and cannot slow the ring down.

What this does not do yet: more than one request at a time, or going on after a stage was lost.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TypeAlias

from gardener.decoding.costs import Costs
from gardener.decoding.events import (
    Command,
    Emit,
    Event,
    Finish,
    Grow,
    Grown,
    Judged,
    Room,
    Send,
    StageLost,
)
from gardener.decoding.pacing import INSTANT, Pacer
from gardener.decoding.payoff import Throttle
from gardener.decoding.policy import Bounds, Plain, Policy
from gardener.decoding.round import Limits, Round
from gardener.decoding.tree import Node
from gardener.draft.drafter import Drafter
from gardener.errors import GardenerError, LocalError, PeerLost, RemoteError, StageFailed
from gardener.holder.drafters import Drafters, Drafts, Guesses
from gardener.holder.features import Features, received
from gardener.holder.outage import Report, ring_broke, stage_failed, stalled
from gardener.holder.ring import Ring
from gardener.holder.stage_times import StageTimes
from gardener.net.address import Address, Inherited
from gardener.protocol.messages import Card, Close, Failed, Message, Segment, Verdict
from gardener.runtime import clock
from gardener.runtime.trace import Trace
from gardener.runtime.worker import AnyWorker, Worker

STALL = 120.0
"""Seconds without any verdict after which a request is given up, though all links are alive."""


def start_again(stage: int) -> str:
    """What to do about a lost stage of a ring that others started."""
    return f"start stage {stage} again, then repeat the request"


Prepare: TypeAlias = Callable[[Sequence[Sequence[int]], int], None]
"""Told prompts that will be asked, and for how many tokens each, before any time is measured: a
simulated ring needs what the model writes. Takes a while. Raises UserError."""


def nothing(prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
    """A real ring needs no preparation."""


class Holder:
    """One ring and, at a time, one request in it."""

    def __init__(
        self,
        card: Card,
        drafters: Sequence[Drafter],
        trace: Trace,
        *,
        listen_at: Address | Inherited,
        peer: Address,
        patience: float,
        say: Callable[[str], None],
        stall: float = STALL,
        advise: Callable[[int], str] = start_again,
        make_worker: Callable[[str], AnyWorker] = Worker,
    ) -> None:
        """`say` is told what the ring waits for; `advise`, given a lost stage, says what to do.
        `make_worker` gives the drafters that take time what they run on."""
        self._make_worker = make_worker
        self.drafters = Drafters(drafters, make_worker)
        self._drafts = Drafts(())  # of the last request
        self.trace = trace
        self.decoding: Round | None = None
        self.stage_times = StageTimes()
        self.costs = Costs.flat(1)  # what the ring takes; a guess until it stands
        self.ring = Ring(card, self, listen_at=listen_at, peer=peer, patience=patience, say=say)
        self._stall = stall
        self._advise = advise
        self._output: asyncio.Queue[tuple[int, ...] | str] = asyncio.Queue()
        self._pacer = Pacer(Plain(Bounds()), self.costs)
        self.throttle = Throttle(self.costs.round_trip(1))
        self._emitted_at = 0.0
        self._timer: asyncio.TimerHandle | None = None  # when to look again for room
        self._sent: dict[int, tuple[float, int]] = {}  # by segment: when, and its rows
        self._features = Features()  # of the verdict that is being handled
        self._failure: GardenerError | None = None  # of the ring, for good
        self._refusal: GardenerError | None = None  # of the request alone
        # Stages may still be busy with requests of the holder before this one: never their numbers.
        self._requests = random.getrandbits(40)
        self._verdicts = 0  # of all requests
        self.prepare: Prepare = nothing

    @property
    def cards(self) -> tuple[Card, ...]:
        """Of the stages, once the ring stands."""
        return self.ring.cards

    @property
    def stands(self) -> bool:
        """The ring can take requests, though one may have failed."""
        return self._failure is None

    async def connect(self) -> tuple[Card, ...]:
        """Close the ring and check it; returns the stages' cards.

        Raises PeerLost, with what it waited for, when that takes longer than `patience`.
        """
        cards = await self.ring.connect()
        self._reckon()
        return cards

    def equip(self, drafters: Sequence[Drafter]) -> None:
        """Draft with these from the next request on: a ring may stand before they are loaded."""
        self.drafters.close()
        self.drafters = Drafters(drafters, self._make_worker)
        if self.cards:
            self._reckon()

    def _reckon(self) -> None:
        """What the ring takes, as its cards say."""
        self.costs = Costs.of((self.ring.card, *self.cards), self.drafters.taps)
        self.throttle = Throttle(self.costs.round_trip(1))

    async def close(self) -> None:
        """Leave the ring politely."""
        self._wake_at(None)
        self._drafts.close()
        self.drafters.close()
        await self.ring.close()

    # --- a request ---------------------------------------------------------------------------

    async def generate(
        self, prompt: Sequence[int], policy: Policy, limits: Limits, chunk: int = 128
    ) -> AsyncIterator[tuple[int, ...]]:
        """Tokens of the answer, as they are accepted. Ends when `decoding.finished` is set.

        A request that was left half-way ends here, for there is only one at a time.

        Raises ValueError for a prompt that leaves no room; PeerLost or RemoteError when the ring
        breaks, StageFailed when a stage cannot compute it, after all tokens accepted until then
        were given out.
        """
        if self.decoding is not None:
            self._abandon(self.decoding)
        self.decoding, self.stage_times = None, StageTimes()
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))
        self._requests += 1
        self._refusal = None
        output = self._output = asyncio.Queue()
        self._sent.clear()
        self.costs.context = len(prompt)
        drafters = self.drafters
        decoding = self.decoding = Round(
            self._requests,
            prompt,
            policy,
            limits,
            chunk,
            sources=drafters.again,
            taps=drafters.taps,
            instant=drafters.instant,
            costs=self.costs,
        )
        self._pacer = Pacer(policy, self.costs)
        decoding.speculating = self.throttle.speculating or not policy.throttled
        self._drafts.close()
        self._drafts = drafters.open(prompt, self._answered, self._drafter_failed)
        try:
            self._run(decoding.start())
            self._fill()
            while not isinstance(item := await self._next(output), str):
                yield item
            if item == "lost":
                raise self._refusal or self._failure or LocalError("lost for no reason")
        finally:
            self._abandon(decoding)

    async def _next(self, output: "asyncio.Queue[tuple[int, ...] | str]") -> tuple[int, ...] | str:
        """The next tokens, or the reason for the end. Gives up when no verdict comes at all."""
        while True:
            judged = self._verdicts
            try:
                async with asyncio.timeout(self._stall):
                    return await output.get()
            except TimeoutError:
                if self._verdicts == judged and self.decoding is not None:
                    self._fail(PeerLost(stalled(self._stall, self.decoding)))

    def _abandon(self, decoding: Round) -> None:
        """The consumer left before the end: free what the stages hold."""
        if decoding.finished is None:
            decoding.finished = "abandoned"
            self._wake_at(None)
            self._output.put_nowait(decoding.finished)
            self.ring.send(Close(decoding.request))

    def _handle(self, event: Event) -> None:
        if self.decoding is not None:
            self.decoding.verdict_in = self._pacer.verdict_in(clock.now())
            self._run(self.decoding.handle(event))
            self._fill()
            self._drafts.tell()

    def _fill(self) -> None:
        """Give the ring what the policy has for it, as soon as there is room."""
        self._wake_at(None)
        while self.decoding is not None and self.decoding.finished is None:
            urgent, now = self.decoding.urgent, clock.now()
            if wait := self._pacer.wait(now, urgent):
                self._wake_at(wait)
                return
            self.decoding.verdict_in = self._pacer.verdict_in(now)
            left = self._pacer.patience(now, self.decoding.tree.root) if urgent else 0.0
            commands = self.decoding.handle(Room(overdue=urgent and left < INSTANT))
            if not commands:
                if left >= INSTANT:
                    self._wake_at(left)
                return
            self._run(commands)

    def _wake_at(self, wait: float | None) -> None:
        """Look again after so many seconds; None: when something happens."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wait is not None:
            self._timer = asyncio.get_running_loop().call_later(wait, self._safely, self._fill)

    def _safely(self, work: Callable[[], None]) -> None:
        """Do what the loop or a link calls for. What goes wrong in it is ours: it ends the request,
        and blames no stage. Raises RemoteError: of a verdict that does not fit."""
        try:
            work()
        except RemoteError:
            raise
        except Exception as error:
            if self.decoding is not None and not self.decoding.finished:
                self._give_up(self.decoding, error)

    def _run(self, commands: Sequence[Command]) -> None:
        for command in commands:
            match command:
                case Send(message):
                    self._send(message)
                case Emit(tokens, nodes):
                    self._settle(nodes)
                    self._output.put_nowait(tokens)
                    self._observe_pace(len(tokens))
                    self.trace.add("emitted", rows=len(tokens), items=tokens)
                case Grow(nodes, source):
                    self._ask(source, nodes)
                case Finish(reason):
                    self._output.put_nowait(reason)

    def _observe_pace(self, tokens: int) -> None:
        """So many tokens were emitted: are guesses worth their time?"""
        decoding, now = self.decoding, clock.now()
        assert decoding is not None
        if decoding.policy.throttled and decoding.counts.emitted > tokens:
            self.throttle.expect(self.costs.round_trip(1))  # as the passes seen so far tell
            self.throttle.emitted(tokens, now - self._emitted_at)
            decoding.speculating = self.throttle.speculating
        self._emitted_at = now

    def _send(self, message: Message) -> None:
        if isinstance(message, Segment):
            rows = len(message.ids)
            self._sent[message.seq] = clock.now(), rows
            self._pacer.sent(clock.now(), rows)
            self.trace.add("sent", message.request, message.seq, rows, items=message.ids)
        self.ring.send(message)

    # --- the drafters ------------------------------------------------------------------------

    def _ask(self, source: int, nodes: Sequence[int]) -> None:
        assert self.decoding is not None
        tree, begin = self.decoding.tree, clock.now()
        guesses = self._drafts.expand(source, nodes, [tree.lineage(node) for node in nodes])
        if guesses is not None:
            grown = Grown(tuple(zip(nodes, guesses, strict=True)), source)
            self._grow(grown, clock.now() - begin)

    def _answered(
        self, source: int, nodes: Sequence[int], guesses: Guesses, seconds: float
    ) -> None:
        grown = Grown(tuple(zip(nodes, guesses, strict=True)), source)
        self.costs.observe_draft(len(nodes), seconds)
        self._safely(partial(self._grow, grown, seconds))
        self._safely(self._fill)  # nobody else looks whether there is room

    def _grow(self, grown: Grown, seconds: float) -> None:
        decoding = self.decoding
        if decoding is None:
            return
        before = len(decoding.tree)
        decoding.verdict_in = self._pacer.verdict_in(clock.now())
        commands = decoding.handle(grown)
        self.trace.add("grown", rows=len(decoding.tree) - before, seconds=seconds)
        self._run(commands)

    def _drafter_failed(self, error: LocalError) -> None:
        if self.decoding is not None and not self.decoding.finished:
            self._give_up(self.decoding, error)

    def _settle(self, nodes: Sequence[Node]) -> None:
        """Tell the drafters of accepted tokens, with the features of the rows before them.

        All accepted tokens of one verdict follow rows of that same verdict: rows are judged in the
        order in which they were sent, parents first, and a token is accepted as soon as the row
        before it is judged.
        """
        self._drafts.settle(nodes, self._features.of([node.parent for node in nodes]))

    def _receive_features(self, decoding: Round, verdict: Verdict) -> None:
        """Keep them, and hand on those of the prompt. Raises RemoteError."""
        lead = next((f.size - f.rows for f in decoding.flights() if f.seq == verdict.seq), 0)
        self._features = received(verdict, lead, self.drafters.taps, self.cards[0])
        if prompt := self._features.prompt:
            self._drafts.settle((), prompt)

    # --- what the ring tells -----------------------------------------------------------------

    def judged(self, verdict: Verdict) -> None:
        decoding = self.decoding
        if decoding is None or verdict.request != decoding.request or decoding.finished:
            return  # of a request that has ended
        sent_at, sent = self._sent.pop(verdict.seq, (clock.now(), 0))
        seconds = clock.now() - sent_at
        self._pacer.judged()
        self._verdicts += 1
        if decoding.counts.emitted:
            self.stage_times.add(verdict.times, seconds)
            self.costs.context = len(decoding.prompt) + decoding.counts.emitted
            self.costs.observe(sent, seconds, verdict.times)
        spent = tuple(part for each in verdict.times for part in (each.wait, each.compute))
        rows = len(verdict.ids)
        self.trace.add("judged", verdict.request, verdict.seq, rows, seconds, items=spent)
        missed = decoding.counts.missed
        self._safely(partial(self._judge, decoding, verdict))
        if decoding.counts.missed > missed:
            self.trace.add("missed", verdict.request, verdict.seq, 1)

    def _judge(self, decoding: Round, verdict: Verdict) -> None:
        self._receive_features(decoding, verdict)
        self._handle(Judged(verdict))

    def failed(self, report: Failed) -> None:
        decoding = self.decoding
        if decoding is not None and report.request == decoding.request and not decoding.finished:
            self._give_up(decoding, StageFailed(stage_failed(report, decoding)))

    def broke(self, reports: Sequence[Report]) -> None:
        stages = len(self.cards)
        self._fail(PeerLost(ring_broke(reports, stages, self.decoding, self._advise)))

    def _give_up(self, decoding: Round, error: Exception) -> None:
        """The request ends, and the ring is ready for the next one."""
        if not isinstance(error, GardenerError):
            kind = type(error).__name__
            error = LocalError(f"{kind} at the holder: {error}; this is a bug, please report it")
        self._refusal = error
        self._run(decoding.handle(StageLost()))
        self.ring.send(Close(decoding.request))

    def _fail(self, error: GardenerError) -> None:
        """The ring is of no more use."""
        if self._failure is None:
            self._failure = error
            if self.decoding is not None:
                self._run(self.decoding.handle(StageLost()))
