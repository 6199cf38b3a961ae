"""The round of one request in a ring: its speculation, and what is learned from it.

It says what it would send; when that leaves is decided for the whole ring (`dispatch.py`).
"""

from collections.abc import Sequence

from gardener.decoding.costs import Costs
from gardener.decoding.events import Command, Emit, Event, Grown, Judged, Moment, Room, Send
from gardener.decoding.flights import Flight
from gardener.decoding.pacing import Patience
from gardener.decoding.speculation import Speculation
from gardener.decoding.stage_times import StageTimes
from gardener.protocol.messages import Segment


class Round:
    """`costs` are those of the ring: what is seen here goes into them."""

    def __init__(
        self, speculation: Speculation, costs: Costs, stage_times: StageTimes | None = None
    ) -> None:
        """`stage_times`: of the same answer, before the ring broke."""
        self.speculation = speculation
        self.stage_times = stage_times or StageTimes()
        self.costs = costs.at(speculation.length)  # for the text as it is now
        self.left = 0.0  # when it sent a segment last, or began
        self.wake: float | None = None  # when it should be asked again whether it has a segment
        self._patience = Patience()

    @property
    def oldest(self) -> Flight | None:
        """Of its segments under way, the one whose verdict is due next."""
        return self.speculation.flights.oldest

    @property
    def newest(self) -> Flight | None:
        """The segment that left last."""
        return self.speculation.flights.newest

    @property
    def prompt_under_way(self) -> bool:
        """Rows of its prompt are in the ring, or have still to go there."""
        return self.speculation.reading or bool(self.speculation.flights.prompt_rows)

    @property
    def throttled(self) -> bool:
        """It does without guesses where these were seen not to pay."""
        return self.speculation.policy.throttled

    def handle(self, event: Event, moment: Moment) -> list[Command]:
        """What to do now that `event` has happened; nothing leaves yet. Raises RemoteError for a
        verdict that does not fit."""
        match event:
            case Judged():
                self._observe(event, moment.now)
            case Grown(children, source, seconds) if not self._instant(source):
                self.costs.observe_draft(len(children), seconds)
        return self.speculation.handle(event, moment)

    def _instant(self, source: int) -> bool:
        instant = self.speculation.instant
        return bool(instant) and instant[source]

    def _observe(self, judged: Judged, now: float) -> None:
        """What the verdict tells of the ring. The prompt is another kind of work: it tells of
        nothing but itself. Of those that left together, one speaks for all."""
        verdict, speculation = judged.verdict, self.speculation
        flight = speculation.flights.due(verdict.seq)
        reading = speculation.length == len(speculation.prompt)
        if flight is None or reading or self.speculation.finished:
            return
        seconds = now - flight.left
        self.stage_times.add(verdict.times, seconds)
        self.costs = self.costs.at(speculation.length)
        if flight.first:
            costs = self.costs if flight.context is None else self.costs.at(flight.context)
            costs.observe(flight.size + flight.beside, seconds, verdict.times)

    def next_segment(self, moment: Moment, room: Room) -> list[Command]:
        """The next segment, for which there is this room. Where that does not say how many rows it
        may have, a root waits for the drafter for a while, at the end of which `wake` stands."""
        self.wake = None
        speculation, now = self.speculation, moment.now
        if room.rows is not None:
            commands = speculation.handle(room, moment)
        else:
            urgent, patience = speculation.urgent, now
            if urgent:
                patience = self._patience.ends(speculation.tree.root, self.costs, now)
            room = Room(urgent and patience <= now, prompt=room.prompt)
            commands = speculation.handle(room, moment)
            if not commands and patience > now:
                self.wake = patience
        if has_segment(commands):
            self.left = now
        return commands


def has_segment(commands: Sequence[Command]) -> bool:
    """Whether a segment is among these."""
    return any(isinstance(each, Send) and isinstance(each.message, Segment) for each in commands)


def emitted(commands: Sequence[Command]) -> int:
    """Tokens that become part of the answer with these."""
    return sum(len(each.tokens) for each in commands if isinstance(each, Emit))
