"""When each stage computed what of one answer, and where the time went.

Everything is derived from the holder's records; no clock of a stage is read. A verdict says how
long its segment waited and was computed at each stage, and the holder knows when it sent the
segment and when the verdict came. The rest of that time was spent on the links. It is shared among
the N + 1 links by their delays, where the cards tell these, and evenly otherwise.

So durations of computing and waiting are measured (in a simulation they are exact), and the moments
at which they began are derived. The time that a message spends in the event loops of either end
counts as time on a link.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from gardener.runtime.trace import Record

Interval: TypeAlias = tuple[float, float]
"""Begin and end in seconds of the clock."""


class StageVisit(NamedTuple):
    """One segment at one stage, in seconds of the clock: when it arrived, and when its computation
    began and ended. Begin equals end where all of its rows had been pruned."""

    arrived: float
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class VerifiedSegment:
    """A segment whose verdict came. `rows`: those that were sent, rows of the prompt included."""

    seq: int
    rows: int
    sent: float
    judged: float
    visits: tuple[StageVisit, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """One answer, as the holder saw it. Moments are in seconds of the clock.

    segments  those whose verdict came before the answer ended
    pending   when the others left
    drafts    begin and end of each piece of drafting, and the nodes that it added to the tree; the
              end is when the holder took the nodes, the length is measured
    emitted   when tokens were emitted, and how many
    misses    those of these moments whose last token had not been in the tree
    """

    stages: int
    segments: tuple[VerifiedSegment, ...]
    pending: tuple[float, ...]
    drafts: tuple[tuple[float, float, int], ...]
    emitted: tuple[tuple[float, int], ...]
    misses: tuple[float, ...] = ()


def timeline_of(records: Iterable[Record], link_weights: Sequence[float]) -> Timeline:
    """The timeline of an answer, from all records of it. link_weights: how the time that segments
    spend on links is shared among these, from the link into stage 1 to the one into the holder.

    This function alone reads the holder's records: all else is derived from what it returns.
    """
    sent: dict[int, Record] = {}
    segments, drafts, emitted, misses = [], [], [], []
    for record in records:
        match record.what:
            case "sent":
                sent[record.seq] = record
            case "judged" if record.seq in sent:
                segments.append(_segment(sent.pop(record.seq), record, link_weights))
            case "grown" if record.seconds > 0:
                drafts.append((record.at - record.seconds, record.at, record.rows))
            case "emitted":
                emitted.append((record.at, record.rows))
            case "missed" if emitted:
                misses.append(emitted[-1][0])
    pending = tuple(record.at for record in sent.values())
    return Timeline(
        stages=len(link_weights) - 1,
        segments=tuple(segments),
        pending=pending,
        drafts=tuple(drafts),
        emitted=tuple(emitted),
        misses=tuple(misses),
    )


def _segment(sent: Record, judged: Record, link_weights: Sequence[float]) -> VerifiedSegment:
    """One segment, from the records of its sending and of its verdict."""
    spent = [microseconds / 1e6 for microseconds in judged.items]
    on_links = max(judged.at - sent.at - sum(spent), 0.0)
    whole = sum(link_weights)
    visits, at = [], sent.at
    for weight, wait, compute in zip(link_weights, spent[::2], spent[1::2], strict=False):
        arrived = at + on_links * weight / whole
        begin = arrived + wait
        at = begin + compute
        visits.append(StageVisit(arrived, begin, at))
    return VerifiedSegment(judged.seq, sent.rows, sent.at, judged.at, tuple(visits))


class ForwardPass(NamedTuple):
    """A forward pass of a stage in seconds of the clock, and the segments that were computed in
    it."""

    begin: float
    end: float
    segments: tuple[VerifiedSegment, ...]


def forward_passes(timeline: Timeline, stage: int) -> list[ForwardPass]:
    """The forward passes of a stage, counted from 0, one after the other.

    Segments that were computed together report the same time, for the same pass. As a stage does
    one thing at a time, passes that seem to overlap are moved apart; each takes what was measured.
    """
    found: list[ForwardPass] = []
    measured = -1.0
    for segment in timeline.segments:
        if len(segment.visits) <= stage:
            continue
        _, begin, end = segment.visits[stage]
        if begin == end:
            continue
        last = found[-1] if found else None
        same = abs(end - begin - measured) < 1e-9
        if last and same and begin < (last.begin + last.end) / 2:
            found[-1] = last._replace(segments=(*last.segments, segment))
            continue
        measured = end - begin
        begin = max(begin, last.end) if last else begin
        found.append(ForwardPass(begin, begin + measured, (segment,)))
    return found


class Shares(NamedTuple):
    """Seconds of one machine; they add up to the time looked at."""

    compute: float
    link: float
    drafting: float
    waiting: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What each machine did in the time looked at, the holder first.

    seconds: the length of that time. missed: the seconds of it between a token that nobody had
    guessed and the next token, which is a whole round trip each time.
    """

    seconds: float
    shares: tuple[Shares, ...]
    missed: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        machines = [each._asdict() for each in self.shares]
        return {"seconds": self.seconds, "machines": machines, "missed": self.missed}


def breakdown(timeline: Timeline) -> Breakdown | None:
    """What the holder and the stages did while the answer was decoded.

    The time looked at goes from the first emission to the last one. It ends earlier where a segment
    was sent whose verdict came after the end, since it is not known what became of that one. None
    if no time is left. Each moment belongs to the first of these that holds, for a stage:

    * compute: it computes (segments computed together count once);
    * link: a segment is on the link into it;
    * drafting: no segment is between the holder and it, and a drafter is at work;
    * waiting: all else; others compute, a segment waits to be taken up, or none is sent.

    For the holder: drafting, while a drafter is at work; link, while a verdict is on its way to it;
    waiting otherwise.
    """
    if not timeline.emitted:
        return None
    window = (timeline.emitted[0][0], min((timeline.emitted[-1][0], *timeline.pending)))
    if window[1] <= window[0]:
        return None
    drafts = _union((begin, end) for begin, end, _ in timeline.drafts)
    shares = [_holder(timeline, window, drafts)]
    shares += [_stage(timeline, stage, window, drafts) for stage in range(timeline.stages)]
    return Breakdown(window[1] - window[0], tuple(shares), _missed(timeline, window))


def _missed(timeline: Timeline, window: Interval) -> float:
    """Seconds in the window between a miss and the next emission."""
    misses = set(timeline.misses)
    moments = pairwise(at for at, _ in timeline.emitted)
    after = ((at, then) for at, then in moments if at in misses)
    return _take([window], _union(after))[0]


def _holder(timeline: Timeline, window: Interval, drafts: Sequence[Interval]) -> Shares:
    left = [window]
    drafting, left = _take(left, drafts)
    link, left = _take(
        left, _union((f.visits[-1].end, f.judged) for f in timeline.segments if f.visits)
    )
    return Shares(0.0, link, drafting, _length(left))


def _stage(timeline: Timeline, stage: int, window: Interval, drafts: Sequence[Interval]) -> Shares:
    met = [segment for segment in timeline.segments if len(segment.visits) > stage]
    passes = forward_passes(timeline, stage)
    compute, left = _take([window], _union((each.begin, each.end) for each in passes))
    link, left = _take(left, _union(coming(segment, stage) for segment in met))
    ahead = _union((segment.sent, segment.visits[stage].arrived) for segment in met)
    drafting, _ = _take(_minus(left, ahead), drafts)
    return Shares(compute, link, drafting, _length(left) - drafting)


def coming(segment: VerifiedSegment, stage: int) -> Interval:
    """While a segment was on the link into a stage, counted from 0."""
    begin = segment.visits[stage - 1].end if stage else segment.sent
    return begin, segment.visits[stage].arrived


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
