"""Stage 0: one ring, and the sessions in it.

The holder owns what outlives a request: the ring, the drafters, what passes cost and whether
guesses pay. All that belongs to one request lies in its `Session`. Sessions share the ring
(`decoding/dispatch.py`); those for which there is no room wait for their turn.
"""

import asyncio
import random
from collections.abc import Callable, Sequence

from gardener.decoding.costs import Costs
from gardener.decoding.dispatch import Dispatch
from gardener.decoding.events import Command, Event
from gardener.decoding.limits import MAX_REQUESTS, PATIENCE_LOST, Limits
from gardener.decoding.policy import Policy
from gardener.decoding.round import Round
from gardener.decoding.speculation import Speculation
from gardener.draft.drafter import Drafter
from gardener.errors import GardenerError, LocalError, PeerLost, StageFailed, UserError
from gardener.holder.admission import Admission
from gardener.holder.advice import Advice
from gardener.holder.downtime import Downtime
from gardener.holder.drafters import Drafters
from gardener.holder.kept import KeptPrefixes
from gardener.holder.lives import MOST_FRUITLESS
from gardener.holder.outage import LossReport, fruitless, stage_failed
from gardener.holder.prepare import Prepare, nothing
from gardener.holder.progress import Progress
from gardener.holder.ring import Ring
from gardener.holder.ring_state import RingState
from gardener.holder.session import Session
from gardener.holder.text import TextStream
from gardener.holder.totals import Totals
from gardener.net.address import Address, Inherited
from gardener.net.keys import Keys
from gardener.net.spares import NO_SPARES, Spares
from gardener.protocol.features import received
from gardener.protocol.messages import Card, Message, Verdict
from gardener.protocol.reports import Busy, Failed
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.runtime import clock
from gardener.runtime.trace import Trace
from gardener.runtime.worker import AnyWorker, Worker

STALL = 120.0
"""Seconds without any verdict after which a request is given up, though all links are alive."""


class Holder:
    """One ring and the sessions in it."""

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
        max_requests: int = MAX_REQUESTS,
        keep: bool = True,
        patience_lost: float = PATIENCE_LOST,
        news: Callable[[str], None] = lambda line: None,
        advise: Callable[[int], str] | None = None,
        make_worker: Callable[[str], AnyWorker] = Worker,
        keys: Keys | None = None,
        spares: Spares = NO_SPARES,
    ) -> None:
        """`say` is told what the ring waits for while it closes, `news` that it broke and that it
        stands again; `advise`, given a lost stage, says what to do. `patience_lost`: seconds for
        which requests wait for a ring that broke; 0: they end with it. `max_requests` run at the
        same time. `keep` what the stages computed of a request, for those that begin with the same
        tokens. `make_worker` gives the drafters that take time what they run on. `keys`: with
        which links are secured."""
        self._make_worker = make_worker
        self.drafters = Drafters(drafters, make_worker)
        self.trace = trace
        self.session: Session | None = None  # the newest
        self.dispatch = Dispatch(Costs.flat(1))  # a guess until the ring stands
        self.keeps = keep
        self.totals = Totals()
        self.admission = Admission(self.send, max_requests)
        self._ended: list[Session] = []  # since something left last
        self._departing = False
        self._timer: asyncio.TimerHandle | None = None
        self.ring = Ring(
            card,
            self,
            listen_at=listen_at,
            peer=peer,
            patience=patience,
            say=say,
            keys=keys,
            spares=spares,
        )
        self._stall = stall
        self._advice = Advice(lambda: (self.ring.card, *self.cards), advise)
        self.downtime = Downtime(patience_lost, self._advice, news)
        self._news = news
        self.progress = Progress()
        self._failure: GardenerError | None = None  # of the ring, for good
        self._failed = asyncio.Event()
        self._sessions = 0  # requests that were opened
        # Their numbers in the ring follow on this; stages may still be busy with those of another
        # holder, and a request gets a new one after a loss.
        self._requests = random.getrandbits(40)
        self.prepare: Prepare = nothing

    @property
    def cards(self) -> tuple[Card, ...]:
        """Of the stages, once the ring stands."""
        return self.ring.cards

    @property
    def costs(self) -> Costs:
        """What the ring takes, for a text of no length."""
        return self.dispatch.costs

    @property
    def stands(self) -> bool:
        """Whether the ring stands, even if a request has failed. While it is broken it takes
        requests, too, which wait."""
        return self.ring.state is RingState.STANDING

    @property
    def given_up(self) -> bool:
        """Whether the ring will never stand again."""
        return self._failure is not None

    @property
    def condition(self) -> str:
        """What the ring waits for since it broke, in a sentence; empty: it is not broken."""
        return self.downtime.condition(self.ring.obstacle)

    async def failure(self) -> GardenerError:
        """Waits until the ring can take requests no more, and never will; why."""
        await self._failed.wait()
        assert self._failure is not None
        return self._failure

    async def connect(self) -> tuple[Card, ...]:
        """Close the ring and check it; returns the stages' cards.

        Raises PeerLost, with what it waited for, when that takes longer than `patience`.
        """
        cards = await self.ring.connect()
        self._reckon()
        return cards

    def equip(self, drafters: Sequence[Drafter]) -> None:
        """Draft with these: a ring may stand before they are loaded. Raises LocalError if requests
        run already."""
        if self.admission.sessions:
            raise LocalError("drafters cannot be exchanged while requests run")
        self.admission.forget(*self.admission.prefixes.kept)
        self.drafters.close()
        self.drafters = Drafters(drafters, self._make_worker)
        if self.cards:
            self._reckon()

    def _reckon(self) -> None:
        """What the ring takes and has room for, as its cards say."""
        self.admission.prefixes = KeptPrefixes(self.cards, bool(self.drafters.taps))
        self.dispatch = Dispatch(Costs.of((self.ring.card, *self.cards), self.drafters.taps))

    async def close(self) -> None:
        """Leave the ring politely."""
        self._fail_for_good(UserError("this ring was closed: open another one"))
        self.admission.close()
        self._set_timer(None)
        self.downtime.leave()
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
        """Begin a request, or let it wait for its turn; the session gives its answer, piece by
        piece, with text if `text` turns tokens into it.

        Raises ValueError for a prompt that leaves no room, what broke the ring if nobody waits for
        it any more, Busy if too many wait already, and UserError if it was closed or if the stages
        have not enough memory for it.
        """
        refusal = self._failure or self.downtime.refusal
        if refusal is not None:
            raise refusal.anew()
        self.check_room()
        self._sessions += 1
        drafters = self.drafters
        speculation = Speculation(
            self._next_request(),
            prompt,
            policy,
            limits,
            chunk,
            sources=drafters.again,
            taps=drafters.taps,
            instant=drafters.instant,
            sampling=sampling,
            logprobs=logprobs,
            keep=self.keeps,
        )
        new_tokens = speculation.tokens_left
        self.admission.prefixes.check(len(prompt), new_tokens, speculation.spare)
        round_ = Round(speculation, self.costs)
        session = Session(self, round_, drafters, text, self._stall, self._sessions)
        self.session = session
        self.admission.waiting.append(session)
        self.depart()
        return session

    def _next_request(self) -> int:
        """A number that no stage has seen."""
        self._requests += 1
        return self._requests

    def check_room(self) -> None:
        """Raise Busy if nobody else may wait."""
        self.admission.check_room(self._soon())

    def _soon(self) -> float:
        """Seconds after which a request that is refused now may find room: about what the first of
        those that run still has to write, if nothing stops it before."""
        running = self.admission.running.values()
        left = [session.speculation.tokens_left for session in running]
        return max(min(left, default=0) * self.costs.round_trip(1), 1.0)

    # --- what a session asks for -------------------------------------------------------------

    @property
    def oldest(self) -> float | None:
        """See `SessionOwner`: what counts is that any stage gets further."""
        oldest = self.admission.oldest
        return None if oldest is None else max(oldest, self.progress.moved)

    def start(self, round_: Round) -> list[Command]:
        """See `SessionOwner`."""
        now = clock.now()
        self.totals.runs_from(now)
        return self.dispatch.start(round_, now)

    def handle(self, round_: Round, event: Event) -> list[Command]:
        """See `SessionOwner`."""
        return self.dispatch.handle(round_, event, clock.now())

    def depart(self) -> None:
        """See `SessionOwner`. What is sent may make drafters answer, of which more may follow."""
        if self._departing:
            return
        self._departing = True
        try:
            self.admission.admit()
            while left := self.dispatch.departures(clock.now()):
                for departure in left:
                    if session := self.admission.running.get(departure.request):
                        session.depart(departure)
                self.admission.admit()
        finally:
            self._departing = False
        self._set_timer(self.dispatch.wake)
        ended, self._ended = self._ended, []
        for session in (*self.admission.running.values(), *ended):
            session.rest()

    def _set_timer(self, wake: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wake is not None:
            wait = wake - clock.now()
            self._timer = asyncio.get_running_loop().call_later(wait, self.depart)

    def ended(self, session: Session) -> None:
        """See `SessionOwner`."""
        self.admission.ended(session)
        self._ended.append(session)
        self.totals.counts.add(session.speculation.counts)
        if not self.admission.running:
            self.totals.rests_from(clock.now())

    def send(self, message: Message) -> None:
        """Send this into the ring."""
        self.ring.send(message)

    def stalled(self) -> None:
        """No verdict came for too long: those that wait for one wait in vain. The ring stands, as
        far as anybody knows."""
        now, stall, layers = clock.now(), self._stall, self.cards[0].layers
        self.admission.fail(
            lambda each: self._lost(
                lambda advice: self.progress.stalled(each.speculation, stall, now, layers, advice)
            ),
            "failed",
        )

    def _lost(self, why: Callable[[Advice], str]) -> PeerLost:
        """Addresses and commands are told only here."""
        return PeerLost(why(self._advice), why(self._advice.brief))

    # --- what the ring tells -----------------------------------------------------------------

    def judged(self, verdict: Verdict) -> None:
        """See `RingOwner`. Verdicts of requests that have ended are dropped."""
        session = self.admission.running.get(verdict.request)
        accepted = 0
        if session is not None:
            speculation = session.speculation
            flight = speculation.flights.due(verdict.seq)
            lead = 0 if flight is None else flight.prompt
            before = speculation.counts.accepted
            session.judged(verdict, received(verdict, lead, speculation.taps, self.cards[0]))
            accepted = speculation.counts.accepted - before
        self.totals.judged(verdict.times, verdict.more, accepted)
        if not verdict.more:  # those that left together are heard together
            self.depart()

    def failed(self, report: Failed) -> None:
        """See `RingOwner`. Where a stage is lost, others have given all up, what is kept too, and
        refuse what begins with it: such a request goes on."""
        session = self.admission.running.get(report.request)
        if session is None:
            self.admission.forget(report.request)  # if it was kept: it can be no more
        elif self.stands:
            session.fail(StageFailed(stage_failed(report, session.speculation)))

    def busy(self, report: Busy) -> None:
        """See `RingOwner`."""
        self.progress.heard(report, clock.now())

    def broke(self, reports: Sequence[LossReport]) -> None:
        """See `RingOwner`. Requests wait for the ring, those that run with what they have."""
        newest = None if self.session is None else self.session.speculation
        several = len(self.admission.running) > 1
        self.admission.suspend()
        self.dispatch = Dispatch(self.costs)  # nothing is under way any more
        self._set_timer(None)
        self.totals.rests_from(clock.now())
        self.totals.breaks += 1
        self.downtime.begin(reports, newest, several, self._end_waiting)

    def mended(self) -> None:
        """See `RingOwner`."""
        self.downtime.mended(self.admission.suspended)
        self._reckon()
        self.admission.resume(self._renew)
        self.depart()

    def _renew(self, session: Session) -> None:
        if session.lives.fruitless >= MOST_FRUITLESS:
            session.fail(PeerLost(fruitless(session.lives.fruitless, session.speculation)))
        else:
            session.renew(self._next_request(), self.costs)

    def _end_waiting(self) -> None:
        """Whoever waits for the ring has waited long enough."""
        self.admission.fail(lambda session: self.downtime.error(session.speculation), "lost")

    def give_up(self, error: GardenerError) -> None:
        """The ring will never stand again, because of `error`: see `RingOwner`; or whoever started
        the stages says so."""
        self._fail_for_good(error)
        self.admission.fail(lambda session: error.anew(), "lost")

    def _fail_for_good(self, error: GardenerError) -> None:
        if self._failure is None:
            self._failure = error
            self._failed.set()
