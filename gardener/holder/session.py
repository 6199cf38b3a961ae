"""One request: from its first command to its finish reason, an async iterator of pieces.

A verdict is handled in the callback in which it arrives, and what follows from it is sent before
that callback returns: nothing waits for a task to be scheduled.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, Self

from gardener.decoding.costs import Costs
from gardener.decoding.dispatch import Departure
from gardener.decoding.events import (
    Abort,
    Command,
    Emit,
    Event,
    Feed,
    Finish,
    Grow,
    Grown,
    Judged,
    Send,
)
from gardener.decoding.round import Round
from gardener.decoding.stage_times import StageTimes
from gardener.errors import GardenerError, LocalError, RemoteError, StageFailed, our_fault
from gardener.holder.drafters import Drafters, Drafts, Guesses
from gardener.holder.lives import Lives
from gardener.holder.outage import not_numbers
from gardener.holder.piece import Piece
from gardener.holder.text import TextStream
from gardener.protocol.features import Features
from gardener.protocol.logprobs import brought
from gardener.protocol.messages import Card, Close, Message, Segment, Verdict
from gardener.protocol.sampling import Sampling
from gardener.runtime import clock
from gardener.runtime.trace import Trace, What


class SessionOwner(Protocol):
    """What a session needs of its holder."""

    trace: Trace

    @property
    def cards(self) -> Sequence[Card]:
        """Of the stages."""

    @property
    def stands(self) -> bool:
        """The ring stands."""

    @property
    def oldest(self) -> float | None:
        """Since when the verdict is under way that has been due longest, of any request."""

    def start(self, round_: Round) -> list[Command]:
        """The first commands of a request."""

    def handle(self, round_: Round, event: Event) -> list[Command]:
        """What to do now that this has happened to a request."""

    def depart(self) -> None:
        """Something happened: let leave what may leave now, of any request."""

    def send(self, message: Message) -> None:
        """Into the ring."""

    def stalled(self) -> None:
        """No verdict came for too long, though all links are alive."""

    def ended(self, session: "Session") -> None:
        """It has its last piece."""


class Session:
    """`async for piece in session`, inside `async with session`, which ends it early if need be.

    Iterating raises PeerLost when the ring stays broken for too long, StageFailed when a stage
    cannot compute the request, LocalError when a drafter or this house itself fails; after all
    pieces accepted until then.
    """

    def __init__(
        self,
        owner: SessionOwner,
        round_: Round,
        drafters: Drafters,
        text: TextStream | None,
        stall: float,
        number: int,
    ) -> None:
        """`text` turns tokens into text; the request's limits tell it of each. `stall`: seconds
        without a verdict that are too long. `number`: counts the requests of the holder from 1. It
        waits until `begin` is called."""
        self.number = number
        self.round = round_
        self.speculation = round_.speculation  # tree, counts, flights, why it finished
        self.error: GardenerError | None = None
        self.tokens: list[int] = []  # of the answer, so far
        self.waited: float | None = None  # seconds until its turn came
        self.lives = Lives(self.speculation)
        self.cached_tokens = 0  # of the prompt, not computed again: another request had begun so
        self._asked = clock.now()
        self._owner, self._text, self._stall = owner, text, stall
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()  # None: there are no more
        self._drafters, self.drafts = drafters, Drafts(())
        self._ended = False  # the last piece is out
        self._missed = 0  # tokens emitted so far that nobody had guessed

    @property
    def request(self) -> int:
        """Its number in the ring, which is another one once the ring broke and stands again."""
        return self.speculation.request

    @property
    def interruptions(self) -> int:
        """How often the ring broke while it was written, and it went on."""
        return len(self.lives.requests) - 1

    @property
    def prompt(self) -> Sequence[int]:
        """The tokens that were asked."""
        return self.speculation.prompt[: self.speculation.asked]

    @property
    def stage_times(self) -> StageTimes:
        """Where its time went."""
        return self.round.stage_times

    @property
    def sampling(self) -> Sampling:
        """The settings that it runs with, the seed among them."""
        return self.speculation.sampling

    @property
    def text_fault(self) -> str | None:
        """Why some of the text is U+FFFD though the tokens are right: the tokenizer failed."""
        return None if self._text is None else self._text.fault

    @property
    def finish_reason(self) -> str | None:
        """None while it runs; see `events.Finish`."""
        return self.speculation.finished

    @property
    def ring_stands(self) -> bool:
        """The ring can take another request, whatever became of this one."""
        return self._owner.stands

    # --- for who reads the answer ------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        piece = await self._next()
        if piece is not None:
            return piece
        self._pieces.put_nowait(None)  # who asks again is told the same
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def _next(self) -> Piece | None:
        while True:
            try:
                async with asyncio.timeout(self._stall - self._unheard()):
                    return await self._pieces.get()
            except TimeoutError:
                if self._unheard() >= self._stall and not self.finish_reason:
                    self._owner.stalled()

    def _unheard(self) -> float:
        """Seconds for which the verdict that has been due longest is under way, of any request:
        those that wait for their turn wait for it, too."""
        since = self._owner.oldest
        return 0.0 if since is None or self.finish_reason else clock.now() - since

    def close(self) -> None:
        """End the request where it stands, if it has not ended: the stages free what they hold, and
        so do the drafters."""
        self._do(Abort("abandoned"))
        self.drafts.close()

    async def read(self) -> str:
        """The text that was not read yet, once all of it is written: with another request, or after
        `close`, it may end early. Raises as iterating does."""
        return "".join([piece.text async for piece in self])

    # --- for the holder ----------------------------------------------------------------------

    def begin(self, source: tuple[Drafts, int] | None = None) -> None:
        """Its turn has come: open the drafts, and carry out the first commands. `source`: drafts
        of a text that begins with as many of the same tokens."""
        if self.waited is None:
            self.waited = clock.now() - self._asked
            self.cached_tokens = (self.speculation.prefix or (0, 0))[1]
        self._guarded(lambda: self._begin(source))

    def _begin(self, source: tuple[Drafts, int] | None) -> None:
        speculation = self.speculation
        self.drafts = self._drafters.open(
            speculation.prompt,
            self._answered,
            self.fail,
            sampling=speculation.sampling,
            source=source,
        )
        self._run(self._owner.start(self.round))

    def suspend(self) -> None:
        """The ring broke: what is under way is lost, and what is drafted is of no use."""
        self.drafts.close()
        self.drafts = Drafts(())
        self.lives.suspend(len(self.tokens))

    def renew(self, request: int, costs: Costs) -> None:
        """The ring stands again: once it is begun, the answer goes on after its last token, as
        request `request`."""
        self.speculation = self.lives.renew(self.speculation, request, self.tokens)
        self.round = Round(self.speculation, costs, self.round.stage_times)

    def leave_drafts(self) -> Drafts:
        """After the end: the drafts, for others who begin with the same text."""
        drafts, self.drafts = self.drafts, Drafts(())
        with suppress(LocalError):  # whoever is broken will fail the next request, too
            drafts.tell()
        drafts.keep()
        return drafts

    def depart(self, departure: Departure) -> None:
        """Carry out what leaves now."""
        self._guarded(lambda: self._carry_out_all(departure))

    def _carry_out_all(self, departure: Departure) -> None:
        if departure.error is not None:
            raise departure.error
        self._run(departure.commands)

    def rest(self) -> None:
        """Nothing more leaves now: there is time for what is not urgent."""
        self._guarded(self.drafts.tell)
        if self._ended:
            self.drafts.end()

    def judged(self, verdict: Verdict, features: Features) -> None:
        """A verdict of this request came; what follows from it leaves when the holder says so.
        Raises RemoteError if it does not fit."""
        if self.finish_reason:
            return
        speculation, now = self.speculation, clock.now()
        flight = speculation.flights.due(verdict.seq)
        spent = tuple([part for each in verdict.times for part in (each.wait, each.compute)])
        rows, seconds = len(verdict.ids), 0.0 if flight is None else now - flight.left
        self._record("judged", verdict.seq, rows, seconds, spent)
        missed = speculation.counts.missed
        judged = Judged(verdict, features, brought(verdict, speculation.logprobs))
        self._guarded(lambda: self._run(self._tell(judged)))
        if speculation.counts.missed > missed:
            self._record("missed", verdict.seq, 1)

    def fail(self, error: GardenerError, reason: str = "failed") -> None:
        """The request ends here, because of `error`."""
        if not self.finish_reason:
            self.error = error
            self._do(Abort(reason))

    # --- the loop ----------------------------------------------------------------------------

    def _do(self, event: Event) -> None:
        self._guarded(lambda: self._run(self._tell(event)))
        self._owner.depart()

    def _guarded(self, work: Callable[[], None]) -> None:
        """What goes wrong here is ours: it ends the request, and blames no stage. What goes wrong
        after the last piece harms nobody: a drafter that is broken fails the next request, too.

        Raises RemoteError: of a verdict that does not fit.
        """
        try:
            work()
        except RemoteError:
            raise
        except Exception as error:
            if not self._ended and self.error is None:
                self.error = our_fault(error)
            if self._ended:
                return
            if self.finish_reason:  # the commands that would have told the stages may be lost
                self._owner.send(Close(self.request))
            else:
                self._do(Abort("failed"))
        finally:
            if self.finish_reason:
                self._end()

    def _tell(self, event: Event) -> list[Command]:
        """Tell the round what happened; returns its commands."""
        drafted = self.speculation.counts.drafted
        commands = self._owner.handle(self.round, event)
        if isinstance(event, Grown):
            added = self.speculation.counts.drafted - drafted
            self._record("grown", rows=added, seconds=event.seconds)
        return commands

    def _run(self, commands: Sequence[Command]) -> None:
        """Carry the commands out, and what follows from them at once."""
        left = deque(commands)
        while left:
            answer = self._carry_out(left.popleft())
            if answer is not None:
                left.extend(self._tell(answer))

    def _carry_out(self, command: Command) -> Grown | None:
        """Returns what a drafter said that answers at once."""
        match command:
            case Send(message):
                self._send(message)
            case Emit():
                self._emit(command)
            case Feed(features):
                self.drafts.settle((), features)
            case Grow(nodes, source):
                return self._ask(nodes, source)
            case Finish(_, broken):
                if broken is not None:
                    emitted = self.speculation.counts.emitted
                    self.error = StageFailed(not_numbers(broken, self._owner.cards, emitted))
                self._give_the_rest()
                self._end()
        return None

    def _send(self, message: Message) -> None:
        if self.lives.suspended:
            return
        if isinstance(message, Segment):
            self._record("sent", message.seq, len(message.ids), items=message.ids)
        self._owner.send(message)

    def _emit(self, emit: Emit) -> None:
        self.drafts.settle(emit.nodes, emit.features)
        text = "" if self._text is None else self._text.take()
        self.tokens += emit.tokens
        missed = self.speculation.counts.missed
        self._pieces.put_nowait(Piece(emit.tokens, text, emit.logprobs, missed > self._missed))
        self._missed = missed
        self._record("emitted", rows=len(emit.tokens), items=emit.tokens)

    def _ask(self, nodes: Sequence[int], source: int) -> Grown | None:
        tree, began = self.speculation.tree, clock.now()
        guesses = self.drafts.expand(source, nodes, [tree.lineage(node) for node in nodes])
        return None if guesses is None else _grown(source, nodes, guesses, clock.now() - began)

    def _answered(
        self, source: int, nodes: Sequence[int], guesses: Guesses, seconds: float
    ) -> None:
        """A drafter that takes its time has an answer."""
        self._do(_grown(source, nodes, guesses, seconds))

    def _give_the_rest(self) -> None:
        """Text that was held back, since it might have been the beginning of a stop string."""
        text = "" if self._text is None else self._text.take(final=True)
        if text:
            self._pieces.put_nowait(Piece((), text))

    def _end(self) -> None:
        """There is no more, whatever went wrong on the way here."""
        if not self._ended:
            self._ended = True
            self._pieces.put_nowait(None)
            self._owner.ended(self)

    def _record(
        self,
        what: What,
        seq: int = 0,
        rows: int = 0,
        seconds: float = 0.0,
        items: tuple[int, ...] = (),
    ) -> None:
        self._owner.trace.add(what, self.request, seq, rows, seconds, items=items)


def _grown(source: int, nodes: Sequence[int], guesses: Guesses, seconds: float) -> Grown:
    return Grown(tuple(zip(nodes, guesses, strict=True)), source, seconds)
