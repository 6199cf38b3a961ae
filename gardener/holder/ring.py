"""The holder's side of the ring: closes it, checks it, keeps it, and closes it again after a loss.

The holder dials stage 1 and is dialled by the last stage. The ring stands once a Survey has come
round. What becomes of it then is in `ring_state.py`.
"""

import asyncio
import contextlib
import math
import secrets
from collections.abc import Callable, Sequence
from typing import Protocol

from gardener.errors import Distrusted, GardenerError, PeerLost, RemoteError, UserError, our_fault
from gardener.holder.outage import LossReport, complete
from gardener.holder.ring_state import NEXT, RingEvent, RingState
from gardener.net.address import Address, Inherited, is_taken
from gardener.net.dial import dial
from gardener.net.keys import Keys
from gardener.net.link import Link
from gardener.net.listen import Listener, listen
from gardener.net.neighbours import Neighbours
from gardener.net.notices import LASTS, Notices, Strangers
from gardener.net.spares import NO_SPARES, Spares
from gardener.protocol.cards import SERVED, mismatch, other_ring, ring_problem
from gardener.protocol.certificates import ONE_CLUSTER
from gardener.protocol.messages import (
    Card,
    Message,
    Survey,
    Verdict,
)
from gardener.protocol.reports import Busy, Failed, Lost, Waiting
from gardener.protocol.strangers import WITH
from gardener.runtime import clock
from gardener.runtime.wording import printable
from gardener.stages.turn import FREE

GATHER = 0.75
"""Seconds to wait for the other neighbour's report of a loss: it notices a heartbeat later."""

SETTLE = 0.1
"""Seconds before a loss is told even if all have reported it who will: the loss of a second stage,
or the end of a process, is noticed meanwhile."""

ASK = 1.0
"""Seconds between two Surveys while the ring is not closed: one may be lost with a link."""

STALE = 3.0
"""Seconds after which an obstacle that nobody has mentioned again no longer counts: every Survey is
answered with what is in its way."""

FOR_PEOPLE = (WITH, "was started without --keys", ONE_CLUSTER)
"""Words of what people have to put right before stage 1 and this holder believe each other."""


class RingOwner(Protocol):
    """What the owner of a ring is told. Called on the loop; must not block."""

    def judged(self, verdict: Verdict) -> None:
        """A verdict came round. May raise RemoteError if it does not fit."""

    def failed(self, report: Failed) -> None:
        """A stage gave a request up. The ring stands."""

    def busy(self, report: Busy) -> None:
        """A stage says how far it is with a pass that takes long."""

    def broke(self, reports: Sequence[LossReport]) -> None:
        """The ring, which stood, broke. It is closed again from now on."""

    def mended(self) -> None:
        """The ring, which broke, stands again."""

    def give_up(self, error: GardenerError) -> None:
        """It will never stand again: this house has failed."""


class Ring:
    """The holder's two neighbours, and what is known of the stages between them."""

    def __init__(
        self,
        card: Card,
        owner: RingOwner,
        *,
        listen_at: Address | Inherited,
        peer: Address,
        patience: float,
        say: Callable[[str], None],
        keys: Keys | None = None,
        spares: Spares = NO_SPARES,
    ) -> None:
        """`spares` stand by for stage 1."""
        self.card = card  # ours; once the ring stands, with what our own link takes
        self.cards: tuple[Card, ...] = ()  # of the stages, once the ring stood
        self.state = RingState.CLOSING
        self._neighbours = Neighbours(card, self, keys, spares)
        self._keys = keys
        self._owner = owner
        self._listen_at, self._peer, self._patience = listen_at, peer, patience
        self._notices = Notices(say)
        self._strangers = Strangers(say)
        self._obstacle = ("", 0.0)  # what was in the way, and at which loop time
        self._missed: float | None = None  # since which loop time the last stage has missed us
        self._nonce = secrets.token_bytes(16)
        self._surveyed: tuple[Card, ...] | None = None  # what came round with this nonce
        self._changed = asyncio.Event()  # something happened while the ring closes
        self._listener: Listener | None = None
        self._reports: list[LossReport] = []  # of the loss that broke it
        self._lost_some = asyncio.Event()  # there is one
        self._lost_all = asyncio.Event()  # there are all that there will be
        self._keeper: asyncio.Task[None] | None = None  # closes it again

    @property
    def downstream(self) -> Link | None:
        """The link to stage 1."""
        return self._neighbours.downstream

    @property
    def upstream(self) -> Link | None:
        """The link to the last stage."""
        return self._neighbours.upstream

    @property
    def obstacle(self) -> str:
        """What has kept it from closing lately, in a sentence; empty: nothing is known."""
        sentence, since = self._obstacle
        fresh = sentence and asyncio.get_running_loop().time() - since <= STALE
        return sentence if fresh else ""

    def _happened(self, event: RingEvent) -> None:
        self.state = NEXT[self.state, event]
        if self.state is RingState.STANDING:
            self._obstacle = ("", 0.0)
        self._changed.set()

    # --- closing it --------------------------------------------------------------------------

    async def connect(self) -> tuple[Card, ...]:
        """Close the ring and check it; returns the stages' cards.

        Raises PeerLost, with what it waited for, when that takes longer than `patience`, or when
        the stages do not fit; UserError when it cannot listen.
        """
        deadline = asyncio.get_running_loop().time() + self._patience
        try:
            self._listener = await listen(
                self._listen_at,
                self.card,
                self,
                admit=self._admit,
                met=self._met,
                distrusted=self._strangers.tell,
                keys=self._keys,
            )
        except UserError as error:
            raise await self._taken(error) from error
        cards = await self._survey(deadline)
        if problem := ring_problem(cards):
            raise PeerLost(problem)
        self.cards = cards[1:]
        self._happened(RingEvent.SURVEYED)
        self._keeper = asyncio.create_task(self._keep())
        return self.cards

    async def close(self) -> None:
        """Leave the ring politely."""
        self._happened(RingEvent.LEAVE)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._listener is not None:
            await self._listener.close()
        await self._neighbours.leave("the holder is done")

    async def _survey(self, deadline: float) -> tuple[Card, ...]:
        """Until the loop's time `deadline`: the cards that came round, ours first. Raises PeerLost
        when it is over."""
        self._forget_survey()
        while True:
            if self.downstream is None:
                await self._dial(deadline)
            await self._ask(deadline)
            if self._surveyed and self.upstream and self.downstream:
                return self._surveyed

    def _forget_survey(self) -> None:
        """What is under way, or is back already, says nothing of the ring to come."""
        self._nonce, self._surveyed = secrets.token_bytes(16), None

    async def _dial(self, deadline: float) -> None:
        left = deadline - asyncio.get_running_loop().time()
        try:
            await self._neighbours.dial(
                self._peer,
                "stage 1",
                patience=None if math.isinf(left) else max(left, 0.0),
                waiting=self._waits_for_stage_1,
            )
        except Distrusted:
            raise
        except PeerLost:
            raise self._overdue() from None

    def _waits_for_stage_1(self, why: str) -> None:
        """Raises Distrusted where waiting mends nothing: the keys of a ring that never stood."""
        if not self.cards and any(words in why for words in FOR_PEOPLE):
            raise Distrusted(why.removeprefix("waiting for "))
        self._say(_served(why) or why)

    async def _taken(self, error: UserError) -> UserError:
        """What to say when we cannot listen: stage 1 knows whether another holder is there."""
        if not is_taken(error):
            return error
        whys: list[str] = []
        with contextlib.suppress(PeerLost):
            await dial(
                self._peer,
                self.card,
                self,
                admit=lambda peer: "it was only asked whom it serves",
                patience=0.0,
                waiting=whys.append,
                whom="stage 1",
                keys=self._keys,
            )
        served = _served("".join(whys))
        if served:
            return UserError(f"{self._listen_at} is in use, for {served}")
        return UserError(
            f"{self._listen_at} is in use, where the last stage dials this holder: stop what "
            "listens there, or start both anew, with another --listen here and that as the last "
            "stage's --peer"
        )

    async def _ask(self, deadline: float) -> None:
        """Send the survey, then wait until it is back or there is reason to send it again."""
        self._changed.clear()
        self.card = self._neighbours.card
        self.send(Survey(self._nonce, (self.card,)))
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(deadline, loop.time() + ASK)):
                await self._changed.wait()
        if loop.time() >= deadline and not self._surveyed:
            raise self._overdue()

    def _overdue(self) -> PeerLost:
        sentence = self.obstacle or "nothing was heard of the last stage"
        return PeerLost(f"the ring did not close within {self._patience:g} s: {sentence}")

    def _admit(self, peer: Card) -> str | None:
        if self.upstream is not None:
            return f"the holder is already served by {self.upstream}"
        return mismatch(peer, self.card)

    def _met(self, link: Link) -> None:
        self._neighbours.take(link)
        self._missed = None
        self._changed.set()

    def _say(self, sentence: str) -> None:
        """Tell the user what the ring waits for."""
        self._hindered(sentence)
        self._missed = None
        self._notices.tell(sentence)

    def _hindered(self, sentence: str) -> None:
        """Take note of what is in the way now."""
        self._obstacle = (sentence, asyncio.get_running_loop().time())

    # --- using it ----------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send this into the ring. A broken link reports itself through `lost`: nothing is raised
        here."""
        self._neighbours.send_down(message)

    def heard(self, link: Link, message: Message) -> None:
        match message:
            case Verdict() if link.upstream:
                self._owner.judged(message)
            case Survey() if link.upstream:
                self._round(message)
            case Lost():
                self._lost(LossReport(message, before=not link.upstream, at=clock.now()))
            case Failed():
                self._owner.failed(message)
            case Busy():
                self._owner.busy(message)
            case Waiting() if not link.upstream:
                self._waits(message)
            case _:
                raise RemoteError(f"the holder has no use for {type(message).__name__}")

    def _round(self, survey: Survey) -> None:
        """A survey has come round. One that another holder sent may still come, or one from before
        a loss: it is ignored."""
        if survey.nonce == self._nonce and self.state is RingState.CLOSING:
            self._surveyed = survey.cards
            self._changed.set()

    def _waits(self, message: Waiting) -> None:
        if self.state is not RingState.CLOSING:
            return
        sentence = printable(message.why)
        if message.peer or self._listener is None:
            self._say(sentence)
            return
        # Tell it only if it lasts: the last stage has to learn first that we are there.
        here = self._listener.address
        sentence += f"; this holder listens at {here}, --peer of stage {message.stage}"
        self._hindered(sentence)
        now = asyncio.get_running_loop().time()
        self._missed = now if self._missed is None else self._missed
        if now - self._missed >= LASTS:
            self._notices.tell(sentence)

    # --- losing it ---------------------------------------------------------------------------

    def lost(self, link: Link, error: GardenerError) -> None:
        loss = self._neighbours.lose(link)  # what came from upstream, the owner knows itself
        if loss is None:
            return
        still = link.parting.stood_still
        self._lost(LossReport(loss, not link.upstream, still, clock.now()))

    def _lost(self, report: LossReport) -> None:
        if self.state is RingState.CLOSING:  # stages may still be starting, or starting again
            self._forget_survey()
            if report.lost.stage and not report.lost.why.endswith(FREE):
                why = printable(report.lost.why)
                self._say(f"stage {report.lost.stage} was lost while the ring closed: {why}")
        else:
            self._reports.append(report)
            self._lost_some.set()
            if complete(self._reports, len(self.cards)):
                self._lost_all.set()
        self._happened(RingEvent.LOST)

    async def _keep(self) -> None:
        """Whenever the ring breaks: hear of what, and close it again."""
        try:
            while True:
                self._owner.broke(await self._hear_of_loss())
                await self._close_again()
                self._owner.mended()
        except Exception as error:
            self._owner.give_up(our_fault(error))

    async def _hear_of_loss(self) -> Sequence[LossReport]:
        """What is told of the next loss."""
        await self._lost_some.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER):
                await self._lost_all.wait()
                await asyncio.sleep(SETTLE)
        reports, self._reports = self._reports, []
        self._lost_some.clear()
        self._lost_all.clear()
        self._happened(RingEvent.TOLD)
        return reports

    async def _close_again(self) -> None:
        """Until it stands as it stood: whoever is another in the place of one that was lost is
        refused, and waited for."""
        while True:
            cards = await self._survey(math.inf)
            problem = ring_problem(cards) or other_ring(self.cards, cards[1:])
            if problem is None:
                self.cards = cards[1:]
                self._happened(RingEvent.SURVEYED)
                return
            self._say(problem)
            await asyncio.sleep(ASK)


def _served(sentence: str) -> str:
    """The part of it which says that the ring serves another holder; "" if it does not."""
    return sentence[sentence.index(SERVED) :] if SERVED in sentence else ""
