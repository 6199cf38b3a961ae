"""Stages 1..N: take segments from the stage before, compute, pass them on to the next.

A node stands between two links. Its upstream link is accepted (stage k-1, or the holder for stage
1), its downstream link is dialled (stage k+1, or the holder for the last stage). What comes from
upstream goes downstream; word of a loss goes both ways, so that the holder hears of it over
whichever side is whole. A node outlives its neighbours: it keeps its weights and waits for them.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import msgspec

from gardener.errors import GardenerError, PeerLost, RemoteError
from gardener.net.address import ABSENT, Address, Inherited
from gardener.net.keys import Keys
from gardener.net.link import Link
from gardener.net.listen import Listener, listen
from gardener.net.neighbours import Neighbours
from gardener.net.notices import LASTS, Notices, Strangers
from gardener.net.spares import NO_SPARES, Spares
from gardener.protocol.cards import busy, mismatch, not_the_first
from gardener.protocol.messages import (
    Advance,
    Card,
    Close,
    Message,
    Open,
    Segment,
    Survey,
    Verdict,
)
from gardener.protocol.names import as_name
from gardener.protocol.reports import Busy, Failed, Lost, Waiting
from gardener.protocol.sight import Sight
from gardener.runtime.trace import Trace
from gardener.runtime.worker import AnyWorker
from gardener.stages.batching import BatchingPolicy
from gardener.stages.computes import Computes
from gardener.stages.liveness import LONG, every, long_pass
from gardener.stages.room import Room
from gardener.stages.scheduler import Refused, Scheduler, in_words
from gardener.stages.sight import UNKNOWN, Machine, near
from gardener.stages.turn import FREE, Turn


class StageNode:
    """One stage at work.

    patience: seconds to look for the next *stage* at the start (None: for ever). A node waits for
    ever for the holder, and for a stage that was there before: both may come back at any time.
    """

    def __init__(
        self,
        stage: Computes,
        card: Card,
        worker: AnyWorker,
        trace: Trace,
        *,
        listen_at: Address | Inherited | Listener,
        peer: Address,
        patience: float | None,
        say: Callable[[str], None],
        machine: Machine = UNKNOWN,
        keys: Keys | None = None,
        spares: Spares = NO_SPARES,
        stepped_in: bool = False,
    ) -> None:
        """`spares` stand by for the stage after this one. `stepped_in`: this one is a spare, in the
        place of a stage that may come back."""
        self.card = card
        self.trace = trace
        self._stage = stage
        # Nobody steps in the place of the holder.
        spares = NO_SPARES if stage.slice.is_last else spares
        self.neighbours = Neighbours(card, self, keys, spares, str(peer))
        self._turn = Turn(card.stage, stepped_in=stepped_in)
        self.scheduler = Scheduler(
            stage,
            worker,
            trace,
            self._pass_on,
            self._drained,
            self._failed,
            BatchingPolicy.of(card),
            Room.of(card),
        )
        self._following = 0 if stage.slice.is_last else card.stage + 1
        self._listen_at = listen_at
        self._peer = peer
        self._patience = patience if self._following else None
        self._say = say
        self._machine, self._keys = machine, keys
        self._nudge = asyncio.Event()
        self._broken = asyncio.Event()  # the downstream link has ended
        self._pending: Survey | None = None  # it came while there was nobody to pass it on to
        self._asked = 0.0  # loop time at which the first such survey came
        self._obstacle = ""  # why nobody has been reached since then, as far as is known
        self._notices = Notices(say)
        self._was_ready = False
        self._loss = Lost(self._following, 0, -1, 0, "it was not there yet")  # the newest

    async def run(self) -> None:
        """Serve until cancelled. Raises PeerLost when patience runs out, UserError when the
        address cannot be listened on."""
        listener = await listen(
            self._listen_at,
            lambda: self.neighbours.card,
            self,
            admit=self._admit,
            met=self._met,
            distrusted=Strangers(self._say).tell,
            sight=self.sight,
            keys=self._keys,
        )
        if listener is not self._listen_at:  # else it was told before
            self._say(f"listening at {listener.address}")
        self._say_if_ready()
        try:
            with every(LONG, self._report_pass):
                await self._keep_downstream()
        finally:
            await listener.close()
            await self.neighbours.leave(f"stage {self.card.stage} ends")

    @property
    def upstream(self) -> Link | None:
        """The link to the stage before, or to the holder."""
        return self.neighbours.upstream

    @property
    def downstream(self) -> Link | None:
        """The link to the stage after, or to the holder."""
        return self.neighbours.downstream

    @property
    def ready(self) -> bool:
        """Whether the stages next to this one are there. The holder does not count: it comes and
        goes with its requests."""
        before = self.upstream is not None or self.card.stage == 1
        return before and (self.downstream is not None or not self._following)

    def _say_if_ready(self) -> None:
        """Tell the user when the stage has become ready, for the first time or again."""
        if self.ready and not self._was_ready:
            self._say(f"ready: {'; '.join(self._surroundings())}")
        self._was_ready = self.ready

    def _surroundings(self) -> list[str]:
        """Which neighbours are there, and where a holder joins the ring."""
        near = [f"stage {stage}" for stage in (self.card.stage - 1, self._following) if stage]
        parts = [f"{' and '.join(near)} {'is' if len(near) == 1 else 'are'} there"] if near else []
        if self.card.stage == 1:
            parts.append("a holder may ask")
        if not self._following:
            parts.append(f"the holder is to listen at {self._peer}")
        return parts

    def sight(self) -> Sight:
        """What somebody is shown who only looks."""
        return msgspec.structs.replace(
            self._machine.sight(),
            upstream=near(self.upstream),
            downstream=near(self.downstream),
            peer=as_name(str(self._peer)),
            obstacle=as_name("" if self.downstream else self._obstacle),
            requests=len(self.scheduler.requests),
            kept=len(self.scheduler.kept),
            used=self.scheduler.slots,
        )

    # --- downstream --------------------------------------------------------------------------

    async def _keep_downstream(self) -> None:
        while True:
            if not self._turn.allowed:
                self._notices.tell(self._alone)
            try:
                async with self._turn.taken():
                    await self._hold_downstream()
            except TimeoutError:
                await self._let_go()

    async def _hold_downstream(self) -> None:
        """Link to the next peer, until that link has ended."""
        self._broken.clear()
        link = await self.neighbours.dial(
            self._peer,
            self._next_peer,
            patience=self._patience,
            waiting=self._note_obstacle,
            nudge=self._nudge,
        )
        self._say(f"connected to {link}")
        self._say_if_ready()
        self._patience, self._obstacle = None, ""
        self._notices.forget()
        if self._pending is not None:
            self._survey(self._pending)
        await self._broken.wait()

    async def _let_go(self) -> None:
        """Nobody stands before this stage: another one in its place may need the next one."""
        if self.downstream is None:
            return
        nobody = f"nobody stands before stage {self.card.stage}: {FREE}"
        self._say(f"let go of {self.downstream}: {nobody}")
        self._loss = Lost(self._following, 0, -1, 0, nobody)
        await self.neighbours.free(nobody)

    @property
    def _alone(self) -> str:
        """Why it does not dial."""
        before = f"stage {self.card.stage - 1}" if self.card.stage > 1 else "a holder"
        return f"waiting for {before}, and then for {self._next_peer} at {self._peer}"

    @property
    def _next_peer(self) -> str:
        return f"stage {self._following}" if self._following else "the holder"

    def _note_obstacle(self, sentence: str) -> None:
        """Another attempt to reach the next peer has failed."""
        if self.upstream is None:
            self._turn.refused(sentence)
        self._obstacle = sentence
        if self._pending is not None:
            self._report_obstacle()
        if self._following or not sentence.endswith(ABSENT) or self._holder_is_missed():
            self._notices.tell(sentence)

    def _holder_is_missed(self) -> bool:
        """Whether a holder has been asking for a while, but cannot be reached at its address. As
        long as nobody asks there is no holder, and nothing is wrong."""
        asked = asyncio.get_running_loop().time() - self._asked
        return self._pending is not None and asked >= LASTS

    def _report_obstacle(self) -> None:
        """Tell the holder, which waits for its survey to come round, why it does not."""
        obstacle = self._obstacle or f"waiting for {self._next_peer} at {self._peer}: no answer yet"
        why = as_name(f"stage {self.card.stage} is {obstacle}")
        self.neighbours.send_up(Waiting(self.card.stage, self._following, why))

    def _pass_on(self, message: Segment | Verdict) -> None:
        """Send on what was computed here."""
        self.neighbours.send_down(message)

    def _forward(self, message: Open | Close | Advance) -> None:
        """Pass on what the holder tells all stages, except from the last stage to the holder."""
        if self._following:
            self.neighbours.send_down(message)

    def _report_pass(self) -> None:
        """Tell the holder of a pass that takes long: it may be as slow as that, or stuck."""
        report = long_pass(self.card.stage, self._stage, self.scheduler.computing)
        if report is not None:
            self.neighbours.send_up(report)

    def _drained(self) -> Awaitable[None] | None:
        """What to wait for while the next stage reads too slowly."""
        if self.downstream is None or not self.downstream.congested:
            return None
        return self._drain(self.downstream)

    async def _drain(self, link: Link) -> None:
        with contextlib.suppress(PeerLost):
            await link.drain()

    # --- upstream ----------------------------------------------------------------------------

    def _admit(self, peer: Card) -> str | None:
        if not peer.stage and self.card.stage > 1:
            return not_the_first(self.card.stage) + self._where_first()
        if self.upstream is not None:
            return busy(self.card.stage, self.upstream, peer.stage)
        return mismatch(peer, self.card)

    def _where_first(self) -> str:
        """Where stage 1 is, for a holder that has come here instead."""
        if self.upstream is None or self.upstream.peer.stage != 1:
            return ""
        return f"; stage 1 is on {self.upstream.host}"

    def _met(self, link: Link) -> None:
        self.neighbours.take(link)
        self._turn.met()
        self._say(f"connected from {link}")
        self._say_if_ready()

    # --- what the links tell -----------------------------------------------------------------

    def heard(self, link: Link, message: Message) -> None:
        match message:
            case Segment() if link.upstream:
                self.scheduler.receive(message)
            case Advance() if link.upstream:
                if not self.scheduler.gave_up(message.request):
                    self._forward(message)  # at once: it overtakes what is computed here
                    self.scheduler.advance(message)
            case Open() if link.upstream:
                self._open(message)
            case Close() if link.upstream:
                self.scheduler.close(message.request, message.keep)
                self._forward(message)
            case Survey() if link.upstream:
                self._survey(message)
            case Lost() | Failed() if link.upstream:
                self.neighbours.send_down(message)
            case Lost() | Failed() | Waiting() | Busy():
                self.neighbours.send_up(message)
            case _:
                kind = type(message).__name__
                raise RemoteError(f"stage {self.card.stage} has no use for {kind}")

    def _open(self, message: Open) -> None:
        """Open a request. Without a next stage it is given up at once: a stage that comes later
        would be sent segments of a request that it does not know. One that is refused here need
        not go further."""
        self.scheduler.open(message)
        if self.scheduler.gave_up(message.request):
            return
        if self.downstream is not None:
            self._forward(message)
        else:
            self.scheduler.give_up(message.request)
            loss = msgspec.structs.replace(self._loss, request=message.request, seq=-1)
            self.neighbours.send_up(loss)

    def lost(self, link: Link, error: GardenerError) -> None:
        loss = self.neighbours.lose(link, had=self.scheduler.latest)
        if loss is not None and link.upstream:
            self._lost_upstream(loss)
        elif loss is not None:
            self._lost_downstream(loss)
        self._say(str(error))
        self._say_if_ready()

    def _lost_upstream(self, loss: Lost) -> None:
        """All requests end, since whoever opened them can no longer be heard."""
        self._pending = None
        self._turn.alone(linked=self.downstream is not None)
        # A holder needs no word of its own end, nor of a stage that had nobody before it.
        if loss.stage and not loss.why.endswith(FREE):
            self.neighbours.send_down(loss)
        for request in self.scheduler.clear():
            self._forward(Close(request))

    def _lost_downstream(self, loss: Lost) -> None:
        self._loss = loss
        self.neighbours.send_up(loss)
        for request in (*self.scheduler.requests, *self.scheduler.kept):
            self.scheduler.give_up(request)
        self._broken.set()

    def _survey(self, survey: Survey) -> None:
        if self.downstream is None:
            if self._pending is not None:
                self._report_obstacle()
            else:  # what was in the way before may be gone: try again
                self._asked, self._obstacle = asyncio.get_running_loop().time(), ""
            self._pending = survey
            self._nudge.set()  # the holder is there now: dial at once
            return
        self._pending = None
        cards = (*survey.cards, self.neighbours.card)
        self.neighbours.send_down(msgspec.structs.replace(survey, cards=cards))

    def _failed(self, request: int, seq: int, error: BaseException) -> None:
        """A request could not be opened, or a segment of it not computed, for instance for lack of
        memory. The node stays up."""
        why = as_name(in_words(error))
        if isinstance(error, Refused):
            self._say(f"request {request} was refused: {why}")
        else:
            self._say(f"segment {seq} of request {request} could not be computed: {why}")
        report = Failed(self.card.stage, request, seq, why)
        self.neighbours.send_up(report)
        self.neighbours.send_down(report)
