"""The round of one request: speculation, given the time.

`handle(event, now)` answers with commands, and `wake` says when it wants to be told of the time
again. Whoever drives it needs three lines: tell the round what happened, carry out its commands,
set the timer it asks for. The core has no clock of its own, so that pacing, patience and what pays
can be tested to the millisecond.
"""

from collections.abc import Sequence

from gardener.decoding.costs import Costs
from gardener.decoding.events import Command, Emit, Event, Grown, Judged, Room, Wake
from gardener.decoding.pacing import Patience, room_at
from gardener.decoding.payoff import Payoff
from gardener.decoding.speculation import Moment, Speculation
from gardener.decoding.stage_times import StageTimes


class Round:
    """`costs` and `payoff` are those of the ring: what is seen here goes into them."""

    def __init__(self, speculation: Speculation, costs: Costs, payoff: Payoff) -> None:
        self.speculation = speculation
        self.stage_times = StageTimes()
        self.wake: float | None = None  # in seconds of the clock that `handle` is given
        self._payoff = payoff
        self._patience = Patience()
        self._emitted_at = 0.0
        self.costs = costs.at(len(speculation.prompt))  # for the text as it is now

    def start(self, now: float) -> list[Command]:
        """The first commands."""
        return self._go_on(self.speculation.start(self._moment(now)), now)

    def handle(self, event: Event, now: float) -> list[Command]:
        """What to do now that `event` has happened. Raises RemoteError for a verdict that does not
        fit."""
        if isinstance(event, Wake):
            return self._go_on([], now)
        match event:
            case Judged():
                self._observe(event, now)
            case Grown(children, source, seconds) if not self._instant(source):
                self.costs.observe_draft(len(children), seconds)
        return self._go_on(self.speculation.handle(event, self._moment(now)), now)

    def _instant(self, source: int) -> bool:
        instant = self.speculation.instant
        return bool(instant) and instant[source]

    def _moment(self, now: float) -> Moment:
        throttled = self.speculation.policy.throttled
        return Moment(now, self.costs, self._payoff.speculating or not throttled)

    # --- what is seen ------------------------------------------------------------------------

    def _observe(self, judged: Judged, now: float) -> None:
        """What the verdict tells of the ring. The prompt is another kind of work: it tells of
        nothing but itself."""
        verdict, emitted = judged.verdict, self.speculation.counts.emitted
        flight = self.speculation.flights.due(verdict.seq)
        if flight is None or not emitted or self.speculation.finished:
            return
        seconds = now - flight.left
        self.stage_times.add(verdict.times, seconds)
        self.costs = self.costs.at(len(self.speculation.prompt) + emitted)
        self.costs.observe(flight.size, seconds, verdict.times)

    def _observe_pace(self, commands: Sequence[Command], now: float) -> None:
        """Whether guesses are worth their time, as the tokens tell that came."""
        for command in commands:
            if not isinstance(command, Emit):
                continue
            tokens = len(command.tokens)
            if self.speculation.policy.throttled and self.speculation.counts.emitted > tokens:
                self._payoff.expect(self.costs.round_trip(1))  # as the passes seen so far tell
                self._payoff.emitted(tokens, now - self._emitted_at)
            self._emitted_at = now

    # --- when the next segment leaves --------------------------------------------------------

    def _go_on(self, commands: list[Command], now: float) -> list[Command]:
        """These commands, and the segments for which there is room. A drafter that answers at once
        is waited for: what it says may leave with them."""
        self._observe_pace(commands, now)
        self.wake = None
        while not self.speculation.finished and not self.speculation.answer_due:
            more = self._next_segment(now)
            if not more:
                break
            commands += more
        return commands

    def _next_segment(self, now: float) -> list[Command]:
        speculation = self.speculation
        urgent = speculation.urgent
        if speculation.policy.paced and not urgent:
            at = room_at(speculation.flights, now)
            if at > now:
                self.wake = at
                return []
        patience = now
        if urgent:
            patience = self._patience.ends(speculation.tree.root, self.costs, now)
        commands = speculation.handle(Room(urgent and patience <= now), self._moment(now))
        if not commands and patience > now:
            self.wake = patience
        return commands
