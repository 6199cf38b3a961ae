"""Stages 1..N: take segments from the stage before, compute, pass them on to the next.

A node stands between two links. Its upstream link is accepted (stage k-1, or the holder for stage
1), its downstream link is dialled (stage k+1, or the holder for the last stage). What comes from
upstream goes downstream; word of a loss goes both ways, so that the holder hears of it over
whichever side is whole. A node outlives its neighbours: it keeps its weights and waits for them.
"""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from gardener.compute import Worker
from gardener.desk import Desk
from gardener.errors import GardenerError, PeerLost, RemoteError
from gardener.messages import (
    Advance,
    Card,
    Close,
    Lost,
    Message,
    Open,
    Segment,
    Survey,
    microseconds,
)
from gardener.net.address import Address, Inherited
from gardener.net.dial import dial
from gardener.net.link import Link
from gardener.net.listen import Listener, listen
from gardener.stages.stage import Stage
from gardener.survey import mismatch
from gardener.trace import Trace


class Node:
    """One stage at work.

    patience: seconds to look for the next *stage* at the start (None: for ever). Once the ring
    stood, and for the holder, a node waits for ever: both may come back at any time.
    """

    def __init__(
        self,
        stage: Stage,
        card: Card,
        worker: Worker,
        trace: Trace,
        *,
        listen_at: Address | Inherited,
        peer: Address,
        patience: float | None,
        say: Callable[[str], None],
    ) -> None:
        self.card = card
        self.trace = trace
        self.upstream: Link | None = None
        self.downstream: Link | None = None
        self.desk = Desk(stage, worker, trace, self._pass_on, self._drained, self._failed)
        self._last = stage.slice.is_last
        self._listen_at = listen_at
        self._peer = peer
        self._patience = patience
        self._say = say
        self._nudge = asyncio.Event()
        self._broken = asyncio.Event()  # the downstream link has ended
        self._pending: Survey | None = None  # came while there was nobody to pass it to
        self._obstacle = "it was not tried yet"

    async def run(self) -> None:
        """Serve until cancelled. Raises PeerLost when patience runs out, UserError when the
        address cannot be listened on."""
        listener = await listen(self._listen_at, self.card, self, admit=self._admit, met=self._met)
        self._say(f"listening at {listener.address}")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.desk.run())
                tasks.create_task(self._keep_downstream())
        except* GardenerError as group:
            raise group.exceptions[0] from None
        finally:
            await self._leave(listener)

    async def _leave(self, listener: Listener) -> None:
        await listener.close()
        for link in (self.upstream, self.downstream):
            if link is not None:
                await link.close(f"stage {self.card.stage} ends")

    # --- downstream --------------------------------------------------------------------------

    async def _keep_downstream(self) -> None:
        patience = None if self._last else self._patience
        while True:
            self._broken.clear()
            self.downstream = await dial(
                self._peer,
                self.card,
                self,
                admit=lambda peer: mismatch(self.card, peer),
                patience=patience,
                waiting=self._waiting,
                nudge=self._nudge,
            )
            self._say(f"connected to {self.downstream}")
            patience = None
            if self._pending is not None:
                self._survey(self._pending)
            await self._broken.wait()

    def _waiting(self, sentence: str) -> None:
        self._obstacle = sentence
        self._say(sentence)
        if self._pending is not None:
            self._report_obstacle()

    def _report_obstacle(self) -> None:
        """Tell the holder, which waits for its survey to come round, what is in the way."""
        following = 0 if self._last else self.card.stage + 1
        why = f"stage {self.card.stage} is {self._obstacle}"
        self._tell_upstream(Lost(following, 0, -1, 0, why[:500]))

    def _pass_on(self, message: Message) -> None:
        """Send downstream; into the void when there is nobody, the holder knows by then."""
        if self.downstream is not None:
            with contextlib.suppress(PeerLost):
                self.downstream.send(message)

    def _forward(self, message: Open | Close | Advance) -> None:
        """Pass on what the holder tells all stages; it need not hear it back."""
        if not self._last:
            self._pass_on(message)

    def _tell_upstream(self, message: Lost) -> None:
        if self.upstream is not None:
            with contextlib.suppress(PeerLost):
                self.upstream.send(message)

    async def _drained(self) -> None:
        """Wait while the next stage reads too slowly."""
        if self.downstream is not None:
            with contextlib.suppress(PeerLost):
                await self.downstream.drain()

    # --- upstream ----------------------------------------------------------------------------

    def _admit(self, peer: Card) -> str | None:
        if self.upstream is not None:
            return (
                f"stage {self.card.stage} already serves {self.upstream}: "
                "wait until it has ended, or end it"
            )
        return mismatch(peer, self.card)

    def _met(self, link: Link) -> None:
        if self.upstream is not None:  # two greetings at once; the first one wins
            raise RemoteError(f"stage {self.card.stage} already serves {self.upstream}")
        self.upstream = link
        self._say(f"connected from {link}")

    # --- what the links tell -----------------------------------------------------------------

    def heard(self, link: Link, message: Message) -> None:
        match message:
            case Segment() if link.upstream:
                self.desk.submit(message)
            case Advance() if link.upstream:
                self._forward(message)  # at once: it overtakes what is computed here
                self.desk.advance(message)
            case Open() if link.upstream:
                self.desk.open(message)
                self._forward(message)
            case Close() if link.upstream:
                self.desk.close(message.request)
                self._forward(message)
            case Survey() if link.upstream:
                self._survey(message)
            case Lost() if link.upstream:
                self._pass_on(message)
            case Lost():
                self._tell_upstream(message)
            case _:
                raise RemoteError(f"stage {self.card.stage} has no use for {message}")

    def lost(self, link: Link, error: GardenerError) -> None:
        self._say(str(error))
        silent = microseconds(asyncio.get_running_loop().time() - link.last_heard)
        if link is self.upstream:
            self.upstream = None
            if link.peer.stage:
                self._pass_on(Lost(link.peer.stage, *self.desk.latest, silent, str(error)[:500]))
            for request in self.desk.requests:
                self.desk.close(request)
                self._forward(Close(request))
        elif not link.upstream:
            self.downstream = None
            self._obstacle = str(error)
            self._tell_upstream(Lost(link.peer.stage, 0, -1, silent, str(error)[:500]))
            self._broken.set()

    def _survey(self, survey: Survey) -> None:
        if self.downstream is None:
            self._pending = survey
            self._nudge.set()  # the holder is there now: do not sleep on
            self._report_obstacle()
            return
        self._pending = None
        self._pass_on(msgspec.structs.replace(survey, cards=(*survey.cards, self.card)))

    def _failed(self, segment: Segment, error: Exception) -> None:
        """A forward pass failed, for instance for lack of memory. The node stays up."""
        kind = type(error).__name__
        why = f"{kind} while it computed {len(segment.ids)} rows: {error}"
        self._say(why)
        report = Lost(self.card.stage, segment.request, segment.seq, 0, why[:500])
        self._tell_upstream(report)
        self._pass_on(report)
