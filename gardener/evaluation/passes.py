"""Where the time of an answer went: which stage computed when, derived from the holder's records.

No clock of a stage is read here. A verdict says how long its segment waited and was computed at
each stage, and the holder knows when it sent the segment and when the verdict came. What remains
of that flight are the links; it is shared among the N + 1 of them by their delays, where the cards
bring these, and evenly otherwise. So durations of compute and waiting are measured, also in a
simulation, where they are exact; the moments at which they began are derived. Time that a message
spends in the event loops of either end counts as link.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from gardener.runtime.trace import Record

Interval: TypeAlias = tuple[float, float]
"""Begin and end in seconds of the clock."""


class Pass(NamedTuple):
    """A segment at a stage. In seconds of the clock; begin equals end where all rows had died."""

    arrived: float
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Flight:
    """A segment with a verdict. `rows` as sent, with those of the prompt; one pass per stage."""

    seq: int
    rows: int
    sent: float
    judged: float
    passes: tuple[Pass, ...]


@dataclass(frozen=True, slots=True)
class Film:
    """One answer. `pending`: when segments left whose verdict came too late to count.

    `drafts`: when drafters were at work, each with the nodes that came of it; their ends are when
    the holder took the outcome, their lengths are measured. `emitted`: moments, and tokens.
    `misses`: those of these moments whose last token had stood in no tree.
    """

    stages: int
    flights: tuple[Flight, ...]
    pending: tuple[float, ...]
    drafts: tuple[tuple[float, float, int], ...]
    emitted: tuple[tuple[float, int], ...]
    misses: tuple[float, ...] = ()


def film(records: Iterable[Record], hops: Sequence[float]) -> Film:
    """From all records of one answer. `hops`: what the links weigh, from the holder to stage 1
    first and from the last stage to the holder last."""
    sent: dict[int, Record] = {}
    flights, drafts, emitted, misses = [], [], [], []
    for record in records:
        match record.what:
            case "sent":
                sent[record.seq] = record
            case "judged" if record.seq in sent:
                flights.append(_flight(sent.pop(record.seq), record, hops))
            case "grown" if record.seconds > 0:
                drafts.append((record.at - record.seconds, record.at, record.rows))
            case "emitted":
                emitted.append((record.at, record.rows))
            case "missed" if emitted:
                misses.append(emitted[-1][0])
    pending = tuple(record.at for record in sent.values())
    return Film(
        stages=len(hops) - 1,
        flights=tuple(flights),
        pending=pending,
        drafts=tuple(drafts),
        emitted=tuple(emitted),
        misses=tuple(misses),
    )


def _flight(sent: Record, judged: Record, hops: Sequence[float]) -> Flight:
    spent = [microseconds / 1e6 for microseconds in judged.items]
    links = max(judged.at - sent.at - sum(spent), 0.0)
    whole = sum(hops)
    passes, at = [], sent.at
    for hop, wait, compute in zip(hops, spent[::2], spent[1::2], strict=False):
        arrived = at + links * hop / whole
        begin = arrived + wait
        at = begin + compute
        passes.append(Pass(arrived, begin, at))
    return Flight(judged.seq, sent.rows, sent.at, judged.at, tuple(passes))


class Work(NamedTuple):
    """A forward pass of a stage, and the segments in it. In seconds of the clock."""

    begin: float
    end: float
    segments: tuple[Flight, ...]


def works(film: Film, stage: int) -> list[Work]:
    """The forward passes of a stage, counted from 0, one after the other.

    Segments that were computed together report the same time, for the same pass. As a stage does
    one thing at a time, passes that seem to overlap are moved apart; each takes what was measured.
    """
    found: list[Work] = []
    measured = -1.0
    for flight in film.flights:
        if len(flight.passes) <= stage or flight.passes[stage].begin == flight.passes[stage].end:
            continue
        _, begin, end = flight.passes[stage]
        last = found[-1] if found else None
        same = abs(end - begin - measured) < 1e-9
        if last and same and begin < (last.begin + last.end) / 2:
            found[-1] = last._replace(segments=(*last.segments, flight))
            continue
        measured = end - begin
        begin = max(begin, last.end) if last else begin
        found.append(Work(begin, begin + measured, (flight,)))
    return found


class Shares(NamedTuple):
    """Seconds of one machine; they add up to the time looked at."""

    compute: float
    link: float
    drafting: float
    waiting: float


@dataclass(frozen=True, slots=True)
class Split:
    """What each machine did in the `seconds` looked at, the holder first. `missed`: seconds of
    these between a token that nobody had guessed and the next one, each time a whole round trip."""

    seconds: float
    shares: tuple[Shares, ...]
    missed: float = 0.0


def split(film: Film) -> Split | None:
    """What the holder and the stages did while the answer was decoded.

    Looked at is the time from the first emission to the last one, but no longer than until the
    first segment left that came back after the end: what became of that one is not known. None if
    nothing of that is left. Of each moment the first that holds counts, for a stage:

    * compute: it computes (segments computed together count once);
    * link: a segment is on the link into it;
    * drafting: no segment is between the holder and it, and a drafter is at work;
    * waiting: all else; others compute, a segment waits to be taken up, or none is sent.

    And for the holder: drafting, a drafter is at work; link, a verdict is on its way to it;
    waiting.
    """
    if not film.emitted:
        return None
    window = (film.emitted[0][0], min((film.emitted[-1][0], *film.pending)))
    if window[1] <= window[0]:
        return None
    drafts = _union((begin, end) for begin, end, _ in film.drafts)
    shares = [_holder(film, window, drafts)]
    shares += [_stage(film, stage, window, drafts) for stage in range(film.stages)]
    return Split(window[1] - window[0], tuple(shares), _missed(film, window))


def _missed(film: Film, window: Interval) -> float:
    """Seconds in the window between a miss and the next emission."""
    misses = set(film.misses)
    moments = pairwise(at for at, _ in film.emitted)
    after = ((at, then) for at, then in moments if at in misses)
    return _take([window], _union(after))[0]


def _holder(film: Film, window: Interval, drafts: Sequence[Interval]) -> Shares:
    left = [window]
    drafting, left = _take(left, drafts)
    link, left = _take(left, _union((f.passes[-1].end, f.judged) for f in film.flights if f.passes))
    return Shares(0.0, link, drafting, _length(left))


def _stage(film: Film, stage: int, window: Interval, drafts: Sequence[Interval]) -> Shares:
    met = [flight for flight in film.flights if len(flight.passes) > stage]
    compute, left = _take([window], _union((work.begin, work.end) for work in works(film, stage)))
    link, left = _take(left, _union(coming(flight, stage) for flight in met))
    ahead = _union((flight.sent, flight.passes[stage].arrived) for flight in met)
    drafting, _ = _take(_minus(left, ahead), drafts)
    return Shares(compute, link, drafting, _length(left) - drafting)


def coming(flight: Flight, stage: int) -> Interval:
    """While a segment was on the link into a stage, counted from 0."""
    begin = flight.passes[stage - 1].end if stage else flight.sent
    return begin, flight.passes[stage].arrived


# --- intervals, in order and apart from each other ---------------------------------------------


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    found: list[Interval] = []
    for begin, end in sorted(intervals):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif end > begin:
            found.append((begin, end))
    return found


def _minus(intervals: Sequence[Interval], others: Sequence[Interval]) -> list[Interval]:
    """What of `intervals` no other covers."""
    left: list[Interval] = []
    first = 0
    for begin, end in intervals:
        while first < len(others) and others[first][1] <= begin:
            first += 1
        for other in others[first:]:
            if other[0] >= end:
                break
            if other[0] > begin:
                left.append((begin, other[0]))
            begin = max(begin, other[1])
        if begin < end:
            left.append((begin, end))
    return left


def _take(left: Sequence[Interval], part: Sequence[Interval]) -> tuple[float, list[Interval]]:
    """Seconds of `left` that `part` covers, and what is left then."""
    rest = _minus(left, part)
    return max(_length(left) - _length(rest), 0.0), rest


def _length(intervals: Sequence[Interval]) -> float:
    return sum(end - begin for begin, end in intervals)
