"""What leaves into the ring next, over all its requests.

A request alone gets all of the ring: its policy decides what a segment has, and pacing when it
leaves. Several share it: segments leave together, a bundle per tick of the slowest stage, and the
stages compute a bundle in one pass. It has the rows, over all requests, that bring the most
expected tokens for their time: roots first, which are sure, then the likeliest guesses of all
trees. So guesses shrink by themselves as the ring fills.

Where no guess pays, roots alone leave, and not all at once: as many bundles are under way as the
ring has places, so that all stages are at work. Of two roots the one that has waited longer leaves
first, so each leaves with one of as many bundles. Policies that do not share (the baselines) decide
about their rows themselves, and take turns. Of prompts one segment goes with each bundle, a short
one while others write.

It has no clock: `handle` and `departures` are given the time, and `wake` says when to ask again.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from gardener.decoding.costs import Costs
from gardener.decoding.events import Command, Event, Moment, Room, Send
from gardener.decoding.flights import Flight
from gardener.decoding.pacing import room_at
from gardener.decoding.payoff import Payoff
from gardener.decoding.payoffs import Payoffs, places
from gardener.decoding.policy import MOST, SharingPolicy
from gardener.decoding.policy.sizes import best_prefix
from gardener.decoding.round import Round, emitted, has_segment
from gardener.protocol.messages import Segment

DEARER = 1.02
"""Rows that lengthen a tick by more than this are not free."""


CHUNK, SHORTEST = 128, 16
"""Most and least rows of a prompt that go along where others write."""

SLOWER = 4.0
"""By this factor a segment of a prompt may lengthen the tick of those who write."""


class Departure(NamedTuple):
    """What a request has to carry out, or what went wrong when it was asked for its segment."""

    request: int
    commands: list[Command]
    error: Exception | None = None


class Dispatch:
    """The requests of one ring. `costs` of it are for a text of no length."""

    def __init__(self, costs: Costs, payoff: Payoff | None = None) -> None:
        """`payoff`: of a request alone; left out, it is begun anew."""
        self.costs = costs
        self.wake: float | None = None  # in seconds of the clock that is given
        self._rounds: dict[int, Round] = {}  # those that run, the oldest first
        self.payoffs = Payoffs(payoff or Payoff(costs.round_trip(1)))
        self._newest: Flight | None = None  # of all that left, since the ring was empty

    # --- what happens ------------------------------------------------------------------------

    def start(self, round_: Round, now: float) -> list[Command]:
        """Begin a request; its first commands."""
        if not self._rounds:
            self._newest = None
        round_.left = now
        self._rounds[round_.speculation.request] = round_
        return round_.speculation.start(self._moment(round_, now))

    def handle(self, round_: Round, event: Event, now: float) -> list[Command]:
        """What to do now that this has happened to a request; nothing leaves yet. After the end:
        nothing. Raises RemoteError for a verdict that does not fit."""
        commands = round_.handle(event, self._moment(round_, now))
        if tokens := emitted(commands):
            self._learn(round_, tokens, now)
        if round_.speculation.finished:
            self._rounds.pop(round_.speculation.request, None)
        return commands

    def _moment(self, round_: Round, now: float) -> Moment:
        level = self.writing
        payoff = self.payoffs.at(level)
        speculating = payoff.speculating or not round_.throttled
        others = level - (not round_.speculation.reading)
        return Moment(now, round_.costs, speculating, max(others, 0), payoff.dearer)

    @property
    def writing(self) -> int:
        """Requests that write their answer."""
        return sum(not round_.speculation.reading for round_ in self._rounds.values())

    def _learn(self, round_: Round, tokens: int, now: float) -> None:
        """From the tokens that came: whether guesses are worth their time."""
        speculation = round_.speculation
        before = speculation.length - tokens - len(speculation.prompt)
        counts = round_.throttled and before > 0
        if any(each.prompt_under_way for each in self._rounds.values()):
            self.payoffs.disturbed()
        else:
            self.payoffs.emitted(tokens, self.writing, round_.costs, now, counts)

    # --- what leaves -------------------------------------------------------------------------

    def departures(self, now: float) -> list[Departure]:
        """What leaves now. To be asked again when all of it is carried out, until there is no more:
        then `wake` says when to ask again, if nothing happens before."""
        self.wake = None
        rounds = list(self._rounds.values())
        if not rounds or any(round_.speculation.answer_due for round_ in rounds):
            return []  # a drafter that answers at once: what it says may leave with the rest
        if len(rounds) == 1:
            return self._alone(rounds[0], now)
        return self._together(rounds, now)

    def _alone(self, round_: Round, now: float) -> list[Departure]:
        speculation = round_.speculation
        if speculation.policy.paced and not speculation.urgent:
            at = room_at(self._newest, round_.oldest, now)
            if at > now:
                self.wake = at
                return []
        left = self._departure(round_, Room(), now)
        self.wake = round_.wake
        return self._leave([left] if left else [], now)

    def _together(self, rounds: Sequence[Round], now: float) -> list[Departure]:
        due = [oldest for round_ in rounds if (oldest := round_.oldest)]
        at = room_at(self._newest, min(due, key=lambda flight: flight.due, default=None), now)
        if at > now:
            self.wake = at
            return []
        rounds = sorted(rounds, key=lambda round_: round_.left)
        reading = [round_ for round_ in rounds if round_.speculation.reading]
        writing = [round_ for round_ in rounds if not round_.speculation.reading]
        sharing = [r for r in writing if isinstance(r.speculation.policy, SharingPolicy)]
        others = [r for r in writing if not isinstance(r.speculation.policy, SharingPolicy)]
        chunk = self._chunk(writing) if writing else None
        left = self._first_of(reading, 1, now, chunk)
        left += self._first_of(others, math.ceil(len(writing) / places(self.costs)), now)
        offers = [(round_, self._offer(round_, now)) for round_ in sharing]
        left += [_blamed(r, each) for r, each in offers if isinstance(each, Exception)]
        sound = [(r, each) for r, each in offers if not isinstance(each, Exception)]
        for round_, rows in self._shares(sound, _rows(left), len(writing)):
            if departure := self._departure(round_, Room(overdue=True, rows=rows), now):
                left.append(departure)
        waits = [round_.wake for round_ in (*reading, *others) if round_.wake is not None]
        self.wake = min(waits, default=None)
        return self._leave(left, now)

    def _chunk(self, writing: Sequence[Round]) -> int:
        """Rows of a prompt that may go along where these write."""
        costs, rows = self._now(writing), CHUNK
        while rows > SHORTEST and costs.tick(rows) > SLOWER * costs.tick(1):
            rows //= 2
        return rows

    def _first_of(
        self, rounds: Sequence[Round], most: int, now: float, chunk: int | None = None
    ) -> list[Departure]:
        """The first of these that have a segment, with so many rows of a prompt at most."""
        left: list[Departure] = []
        for round_ in rounds:
            if sum(has_segment(each.commands) for each in left) < most:
                departure = self._departure(round_, Room(prompt=chunk), now)
                left += [departure] if departure else []
        return left

    def _departure(self, round_: Round, room: Room, now: float) -> Departure | None:
        request = round_.speculation.request
        try:
            commands = round_.next_segment(self._moment(round_, now), room)
        except Exception as error:  # a bug in a policy: the others go on
            return Departure(request, [], error)
        return Departure(request, commands) if commands else None

    def _offer(self, round_: Round, now: float) -> list[float] | Exception:
        """What it would send, or what went wrong when it was asked."""
        try:
            return round_.speculation.offer(self._moment(round_, now))
        except Exception as error:  # as above
            return error

    def _shares(
        self, offered: Sequence[tuple[Round, list[float]]], beside: int, writing: int
    ) -> list[tuple[Round, int]]:
        """How many rows each of these sends now, of `writing` requests; `beside` rows leave
        anyway."""
        if not offered:
            return []
        rounds, offers = [each for each, _ in offered], [offer for _, offer in offered]
        costs = self._now(rounds)
        wanted = _worth_sending(offers, beside, costs)
        roots = [who for who, round_ in enumerate(rounds) if round_.speculation.urgent]
        most = math.ceil(writing / places(costs))
        if len(roots) > most:
            # All of them now, and guesses alone with the next bundle? Or some of them then?
            guessed = sum(chance for chance, _ in wanted) - len(roots)
            dearer = costs.tick(beside + len(roots)) > DEARER * costs.tick(beside + most)
            if guessed <= 0 or (dearer and guessed < len(roots) - most):
                for who in roots[most:]:
                    offers[who] = []
                wanted = _worth_sending(offers, beside, costs)
        granted = Counter(who for _, who in wanted)
        return [(rounds[who], granted[who]) for who in sorted(granted)]

    def _now(self, rounds: Sequence[Round]) -> Costs:
        """What the ring takes for texts of the length that these have in the mean."""
        return self.costs.at(round(sum(each.costs.context for each in rounds) / len(rounds)))

    def _leave(self, left: list[Departure], now: float) -> list[Departure]:
        """Note what leaves, and tell the stages which segments belong together."""
        senders = [each.request for each in left if has_segment(each.commands)]
        flights = [self._rounds[request].speculation.flights for request in senders]
        rows = sum(each.newest.size for each in flights if each.newest)
        if len(senders) > 1:
            costs = self._now([self._rounds[request] for request in senders])
            tick, due = costs.tick(rows), now + costs.round_trip(rows)
            for at, each in enumerate(flights):
                assert each.newest is not None
                each.joined(tick, due, rows - each.newest.size, costs.context, first=not at)
        if flights:
            self._newest = flights[-1].newest
        return [_followed(each) if each.request in senders[:-1] else each for each in left]


def _worth_sending(
    offers: Sequence[Sequence[float]], beside: int, costs: Costs
) -> list[tuple[float, int]]:
    """The rows that together bring the most tokens for their time: how likely each is to come true,
    and whose it is. `offers`: of each request, likeliest first; who has waited longest stands in
    front. `beside`: rows that leave anyway."""
    # The sort is stable: of equally likely rows, roots above all, those that have waited longest
    # stay in front, and the rows of a request in its own order.
    wanted = sorted(
        ((chance, who) for who, offer in enumerate(offers) for chance in offer),
        key=lambda each: -each[0],
    )
    sure = sum(chance == 1.0 for chance, _ in wanted)
    wanted = wanted[: max(MOST, sure)]
    window = places(costs) + 1
    # What goes along takes its time anyway, and has a value of its own: rows are only charged for
    # what they add to that.
    extra = costs.lead(beside + 1, window) - costs.lead(1, window) if beside else 0.0
    size, _ = best_prefix(
        [chance for chance, _ in wanted], lambda rows: costs.lead(beside + rows, window) - extra
    )
    return wanted[:size]


def _blamed(round_: Round, error: Exception) -> Departure:
    return Departure(round_.speculation.request, [], error)


def _rows(left: Sequence[Departure]) -> int:
    """Rows in the segments among these."""
    sent = [c.message for each in left for c in each.commands if isinstance(c, Send)]
    return sum(len(message.ids) for message in sent if isinstance(message, Segment))


def _followed(departure: Departure) -> Departure:
    """The same, its segment marked: another one follows that is to be computed with it."""
    commands = [
        Send(msgspec.structs.replace(each.message, more=True))
        if isinstance(each, Send) and isinstance(each.message, Segment)
        else each
        for each in departure.commands
    ]
    return departure._replace(commands=commands)
