"""Stage 0: one ring, and the sessions in it.

The holder owns what outlives a request: the ring, the drafters, what passes cost and whether
guesses pay. All that belongs to one request lies in its `Session`.
"""

import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

from gardener.decoding.costs import Costs
from gardener.decoding.limits import Limits
from gardener.decoding.payoff import Payoff
from gardener.decoding.policy import Policy
from gardener.decoding.round import Round
from gardener.decoding.speculation import Speculation
from gardener.draft.drafter import Drafter
from gardener.errors import GardenerError, PeerLost, StageFailed, UserError
from gardener.holder.drafters import Drafters
from gardener.holder.outage import LossReport, ring_broke, stage_failed, stalled
from gardener.holder.ring import Ring
from gardener.holder.session import Session
from gardener.holder.text import TextStream
from gardener.net.address import Address, Inherited
from gardener.protocol.features import received
from gardener.protocol.messages import Card, Failed, Message, Verdict
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.runtime.trace import Trace
from gardener.runtime.worker import AnyWorker, Worker

STALL = 120.0
"""Seconds without any verdict after which a request is given up, though all links are alive."""


def start_again(stage: int) -> str:
    """What to do about a lost stage of a ring that others started."""
    return f"start stage {stage} again, then repeat the request"


Prepare: TypeAlias = Callable[[Sequence[Sequence[int]], int, Sampling], None]
"""Told prompts that will be asked, for how many tokens each, and how these are picked, before any
time is measured: a simulated ring needs what the model writes. Takes a while. Raises UserError."""


def nothing(prompts: Sequence[Sequence[int]], new_tokens: int, sampling: Sampling) -> None:
    """A real ring needs no preparation."""


class Holder:
    """One ring and, at a time, one session in it."""

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
        self.trace = trace
        self.session: Session | None = None  # the newest
        self.costs = Costs.flat(1)  # what the ring takes; a guess until it stands
        self.payoff = Payoff(self.costs.round_trip(1))
        self.ring = Ring(card, self, listen_at=listen_at, peer=peer, patience=patience, say=say)
        self._stall = stall
        self._advise = advise
        self._failure: GardenerError | None = None  # of the ring, for good
        # Stages may still be busy with requests of an earlier holder: do not use their numbers.
        self._requests = random.getrandbits(40)
        self.prepare: Prepare = nothing

    @property
    def cards(self) -> tuple[Card, ...]:
        """Of the stages, once the ring stands."""
        return self.ring.cards

    @property
    def stands(self) -> bool:
        """Whether the ring can take requests, even if one has failed."""
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
        self.payoff = Payoff(self.costs.round_trip(1))

    async def close(self) -> None:
        """Leave the ring politely."""
        if self._failure is None:
            self._failure = UserError("this ring was closed: open another one")
        if self.session is not None:
            self.session.close()
        self.drafters.close()
        await self.ring.close()

    # --- sessions ----------------------------------------------------------------------------

    def open(
        self,
        prompt: Sequence[int],
        policy: Policy,
        limits: Limits,
        chunk: int = 128,
        text: TextStream | None = None,
        *,
        sampling: Sampling = GREEDY,
        logprobs: int | None = None,
    ) -> Session:
        """Begin a request; the session gives its answer, piece by piece, with text if `text` turns
        tokens into it. One that runs already ends here, for there is only one at a time.

        Raises ValueError for a prompt that leaves no room, what broke the ring if it is broken, and
        UserError if it was closed.
        """
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))
        self._requests += 1
        drafters = self.drafters
        speculation = Speculation(
            self._requests,
            prompt,
            policy,
            limits,
            chunk,
            sources=drafters.again,
            taps=drafters.taps,
            instant=drafters.instant,
            sampling=sampling,
            logprobs=logprobs,
        )
        if self.session is not None:
            self.session.close()
        round_ = Round(speculation, self.costs, self.payoff)
        session = self.session = Session(self, round_, drafters, text, self._stall)
        session.begin()
        return session

    def _running(self, request: int) -> Session | None:
        """The session of this request, if it has not ended."""
        session = self.session
        if session is None or session.request != request or session.finish_reason:
            return None
        return session

    # --- what a session asks for -------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send this into the ring."""
        self.ring.send(message)

    def stalled(self, session: Session) -> None:
        """No verdict came for too long: the ring can no longer be used."""
        self._fail(PeerLost(stalled(self._stall, session.speculation)))

    # --- what the ring tells -----------------------------------------------------------------

    def judged(self, verdict: Verdict) -> None:
        """See `RingOwner`. Verdicts of requests that have ended are dropped."""
        session = self._running(verdict.request)
        if session is not None:
            flight = session.speculation.flights.due(verdict.seq)
            lead = 0 if flight is None else flight.prompt
            session.judged(
                verdict, received(verdict, lead, session.speculation.taps, self.cards[0])
            )

    def failed(self, report: Failed) -> None:
        """See `RingOwner`."""
        session = self._running(report.request)
        if session is not None:
            session.fail(StageFailed(stage_failed(report, session.speculation)))

    def broke(self, reports: Sequence[LossReport]) -> None:
        """See `RingOwner`."""
        speculation = None if self.session is None else self.session.speculation
        self._fail(PeerLost(ring_broke(reports, len(self.cards), speculation, self._advise)))

    def _fail(self, error: GardenerError) -> None:
        """The ring can no longer be used."""
        if self._failure is None:
            self._failure = error
            if self.session is not None:
                self.session.fail(error, "lost")
