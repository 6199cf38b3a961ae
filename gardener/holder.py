"""Stage 0: drives a decoding, its drafter and the ring.

The holder dials stage 1 and is dialled by the last stage. A verdict is handled in the callback in
which it arrives, and what follows from it is sent before that callback returns: nothing waits for a
task to be scheduled. The consumer of the text reads from a queue and cannot slow the ring down.

What this does not do yet: more than one request at a time, or going on after a stage was lost.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from gardener.decoding import (
    Command,
    Decoding,
    Emit,
    Event,
    Finish,
    Flight,
    Grow,
    Grown,
    Judged,
    Limits,
    Room,
    Send,
    StageLost,
)
from gardener.draft.drafter import Drafter
from gardener.errors import GardenerError, PeerLost, RemoteError
from gardener.messages import (
    Card,
    Close,
    Lost,
    Message,
    Segment,
    Survey,
    Timing,
    Verdict,
    microseconds,
)
from gardener.net.address import Address, Inherited
from gardener.net.dial import dial
from gardener.net.link import Link
from gardener.net.listen import Listener, listen
from gardener.policy import Policy
from gardener.survey import mismatch, ring_problem
from gardener.trace import Trace

STALL = 120.0
"""Seconds without any verdict after which a request is given up, though all links are alive."""

GATHER = 0.25
"""Seconds to wait for the report of the other neighbour once one reports a loss."""


@dataclass(slots=True)
class Passage:
    """What the verdicts said about the time that segments took, summed per stage, in seconds.

    Only of segments judged after the first token: the prefill is another kind of work.
    """

    wait: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)
    flight: float = 0.0  # from sending to verdict, summed over segments
    segments: int = 0

    def add(self, times: Sequence[Timing], seconds: float) -> None:
        for sums in (self.wait, self.compute):
            sums.extend([0.0] * (len(times) - len(sums)))
        for stage, timing in enumerate(times):
            self.wait[stage] += timing.wait / 1e6
            self.compute[stage] += timing.compute / 1e6
        self.flight += seconds
        self.segments += 1


class Holder:
    """One ring and, at a time, one request in it."""

    def __init__(
        self,
        card: Card,
        drafter: Drafter,
        trace: Trace,
        *,
        listen_at: Address | Inherited,
        peer: Address,
        patience: float,
        say: Callable[[str], None],
        stall: float = STALL,
    ) -> None:
        self.card = card
        self.cards: tuple[Card, ...] = ()  # of the stages, once the ring stands
        self.drafter = drafter
        self.trace = trace
        self.decoding: Decoding | None = None
        self.passage = Passage()
        self.downstream: Link | None = None  # stage 1
        self.upstream: Link | None = None  # the last stage
        self._listen_at = listen_at
        self._peer = peer
        self._patience = patience
        self._stall = stall
        self._say = say
        self._nonce = secrets.token_bytes(16)
        self._surveyed: asyncio.Future[tuple[Card, ...]] | None = None
        self._obstacle = "nothing was heard of the last stage"
        self._output: asyncio.Queue[tuple[int, ...] | str] = asyncio.Queue()
        self._sent_at: dict[int, float] = {}
        self._reports: list[Lost] = []
        self._failure: GardenerError | None = None
        self._listener: Listener | None = None
        self._requests = 0
        self._verdicts = 0  # of all requests

    # --- the ring ----------------------------------------------------------------------------

    async def connect(self) -> tuple[Card, ...]:
        """Close the ring and check it; returns the stages' cards.

        Raises PeerLost, with what it waited for, when that takes longer than `patience`.
        """
        deadline = asyncio.get_running_loop().time() + self._patience
        self._surveyed = asyncio.get_running_loop().create_future()
        self._listener = await listen(
            self._listen_at, self.card, self, admit=self._admit, met=self._met
        )
        self.downstream = await dial(
            self._peer,
            self.card,
            self,
            admit=lambda peer: mismatch(self.card, peer),
            patience=self._patience,
            waiting=self._say,
        )
        self.downstream.send(Survey(self._nonce, (self.card,)))
        try:
            async with asyncio.timeout_at(deadline):
                cards = await self._surveyed
        except TimeoutError:
            raise PeerLost(
                f"the ring did not close within {self._patience:g} s: {self._obstacle}"
            ) from None
        problem = ring_problem(cards)
        if problem:
            raise PeerLost(problem)
        self.cards = cards[1:]
        return self.cards

    async def close(self) -> None:
        """Leave the ring politely."""
        if self._listener is not None:
            await self._listener.close()
        for link in (self.downstream, self.upstream):
            if link is not None:
                await link.close("the holder is done")

    def _admit(self, peer: Card) -> str | None:
        if self.upstream is not None:
            return f"the holder is already served by {self.upstream}"
        return mismatch(peer, self.card)

    def _met(self, link: Link) -> None:
        self.upstream = link

    # --- a request ---------------------------------------------------------------------------

    async def generate(
        self, prompt: Sequence[int], policy: Policy, limits: Limits, chunk: int = 128
    ) -> AsyncIterator[tuple[int, ...]]:
        """Tokens of the answer, as they are accepted. Ends when `decoding.finished` is set.

        Raises ValueError for a prompt that leaves no room; PeerLost or RemoteError when the ring
        breaks, after all tokens accepted until then were given out.
        """
        if self._failure is not None:
            raise self._failure
        self._requests += 1
        self._output = asyncio.Queue()
        self._sent_at.clear()
        self.passage = Passage()
        self.decoding = Decoding(self._requests, prompt, policy, limits, chunk)
        self.drafter.begin(prompt)
        try:
            self._run(self.decoding.start())
            self._fill()
            while not isinstance(item := await self._next(), str):
                yield item
            if self._failure is not None:
                raise self._failure
        finally:
            self._abandon(self.decoding)

    async def _next(self) -> tuple[int, ...] | str:
        """The next tokens, or the reason for the end. Gives up when no verdict comes at all."""
        while True:
            judged = self._verdicts
            try:
                async with asyncio.timeout(self._stall):
                    return await self._output.get()
            except TimeoutError:
                if self._verdicts == judged:
                    self._fail(PeerLost(self._stalled()))

    def _abandon(self, decoding: Decoding) -> None:
        """The consumer left before the end: free what the stages hold."""
        if decoding.finished is None and self.downstream is not None:
            decoding.finished = "abandoned"
            with contextlib.suppress(PeerLost):
                self.downstream.send(Close(decoding.request))

    def _handle(self, event: Event) -> None:
        if self.decoding is not None:
            self._run(self.decoding.handle(event))
            self._fill()

    def _fill(self) -> None:
        """Give the ring what the policy has for it."""
        while self.decoding is not None and (commands := self.decoding.handle(Room())):
            self._run(commands)

    def _run(self, commands: Sequence[Command]) -> None:
        for command in commands:
            match command:
                case Send(message):
                    self._send(message)
                case Emit(tokens):
                    self.drafter.settle(tokens)
                    self._output.put_nowait(tokens)
                    self.trace.add("emitted", rows=len(tokens), items=tokens)
                case Grow(nodes):
                    self._grow(nodes)
                case Finish(reason):
                    self._output.put_nowait(reason)

    def _send(self, message: Message) -> None:
        assert self.downstream is not None
        if isinstance(message, Segment):
            self._sent_at[message.seq] = time.monotonic()
            rows = len(message.ids)
            self.trace.add("sent", message.request, message.seq, rows, items=message.ids)
        # A broken link reports itself through `lost`; nothing more is to be done here.
        with contextlib.suppress(PeerLost):
            self.downstream.send(message)

    def _grow(self, nodes: Sequence[int]) -> None:
        """Ask the drafter. All drafters so far are `free`: they answer at once."""
        assert self.decoding is not None
        begin = time.monotonic()
        tree = self.decoding.tree
        paths = [[n.token for n in tree.lineage(node)[1:]] for node in nodes]
        children = tuple(zip(nodes, self.drafter.expand(paths), strict=True))
        before = len(tree)
        commands = self.decoding.handle(Grown(children))
        self.trace.add("grown", rows=len(tree) - before, seconds=time.monotonic() - begin)
        self._run(commands)

    # --- what the links tell -----------------------------------------------------------------

    def heard(self, link: Link, message: Message) -> None:
        match message:
            case Verdict() if link.upstream:
                self._judged(message)
            case Survey() if link.upstream:
                self._survey(message)
            case Lost():
                self._report(message)
            case _:
                raise RemoteError(f"the holder has no use for {type(message).__name__}")

    def lost(self, link: Link, error: GardenerError) -> None:
        if link.upstream and link is not self.upstream:
            return
        if link.upstream:
            self.upstream = None
        silent = microseconds(asyncio.get_running_loop().time() - link.last_heard)
        self._report(Lost(link.peer.stage, 0, -1, silent, str(error)[:500]))

    def _judged(self, verdict: Verdict) -> None:
        decoding = self.decoding
        if decoding is None or verdict.request != decoding.request or decoding.finished:
            return  # of a request that has ended
        seconds = time.monotonic() - self._sent_at.pop(verdict.seq, time.monotonic())
        self._verdicts += 1
        if decoding.counts.emitted:
            self.passage.add(verdict.times, seconds)
        self.trace.add("judged", verdict.request, verdict.seq, len(verdict.ids), seconds)
        missed = decoding.counts.missed
        self._handle(Judged(verdict))
        if decoding.counts.missed > missed:
            self.trace.add("missed", verdict.request, verdict.seq, 1)

    def _survey(self, survey: Survey) -> None:
        if survey.nonce != self._nonce or self._surveyed is None:
            raise RemoteError("a survey came round that this holder never sent")
        if not self._surveyed.done():
            self._surveyed.set_result(survey.cards)

    # --- loss --------------------------------------------------------------------------------

    def _report(self, report: Lost) -> None:
        if not self.cards:  # the ring is not closed yet: stages may still be starting
            self._obstacle = report.why
            self._say(report.why)
            return
        self._reports.append(report)
        if len(self._reports) == 1:
            # The neighbour on the other side knows more, and it reports within a moment.
            asyncio.get_running_loop().call_later(GATHER, self._conclude)

    def _conclude(self) -> None:
        self._fail(PeerLost(self._obituary(self._reports)))

    def _fail(self, error: GardenerError) -> None:
        if self._failure is None:
            self._failure = error
            if self.decoding is not None:
                self._run(self.decoding.handle(StageLost()))

    def _obituary(self, reports: Sequence[Lost]) -> str:
        """One sentence: which stage, what it was doing, when it was last heard, what to do."""
        stage = reports[0].stage
        mine = [r for r in reports if r.stage == stage]
        silent = min(r.silent for r in mine) / 1e6
        passed = max(r.seq for r in mine)
        kept = self.decoding.counts.emitted if self.decoding is not None else 0
        return (
            f"stage {stage} was lost {self._occupation(stage, passed)}: {mine[0].why.rstrip('.')} "
            f"(last heard {silent:.1f} s before that); {kept} tokens are kept; start stage {stage} "
            "again and repeat the request"
        )

    def _occupation(self, stage: int, passed: int) -> str:
        """What a stage was doing that has let the segments up to `passed` go."""
        ahead = [f for f in self._flights() if f.seq > passed]
        if not ahead:
            return "while it was idle"
        first = ahead[0]
        where = "had" if stage == 1 else "had, or was about to get,"
        return f"while it {where} segment {first.seq} of {first.size} rows to compute"

    def _stalled(self) -> str:
        flights = self._flights()
        first = f"segment {flights[0].seq} of {flights[0].size} rows" if flights else "no segment"
        return (
            f"no verdict came for {self._stall:g} s, though every link is alive: {first} is under "
            "way; see what the stages say on their own terminals"
        )

    def _flights(self) -> list[Flight]:
        return self.decoding.flights() if self.decoding is not None else []
