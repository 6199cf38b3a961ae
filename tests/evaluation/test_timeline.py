"""Where the time of an answer went, from records made by hand."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gardener.evaluation.timeline import (
    Shares,
    StageVisit,
    Timeline,
    VerifiedSegment,
    breakdown,
    forward_passes,
    timeline_of,
)
from gardener.runtime.trace import Record, What


def record(
    at: float,
    what: What,
    seq: int = 0,
    rows: int = 1,
    seconds: float = 0.0,
    items: tuple[int, ...] = (),
) -> Record:
    return Record(at, what, 1, seq, rows, seconds, items)


def spent(*seconds: float) -> tuple[int, ...]:
    return tuple(round(each * 1e6) for each in seconds)


def test_a_flight_is_cut_into_what_the_verdict_says_and_links() -> None:
    """Sent at 10, judged at 20: 6 s at two stages, so 4 s on three links that weigh 1, 2 and 1."""
    seen = timeline_of(
        [
            record(10.0, "sent", 7, rows=5),
            record(20.0, "judged", 7, rows=3, seconds=10.0, items=spent(1.0, 2.0, 0.0, 3.0)),
            record(20.0, "emitted", rows=2),
        ],
        [1.0, 2.0, 1.0],
    )
    passes = (StageVisit(11.0, 12.0, 14.0), StageVisit(16.0, 16.0, 19.0))
    assert seen == Timeline(2, (VerifiedSegment(7, 5, 10.0, 20.0, passes),), (), (), ((20.0, 2),))


def test_what_has_no_verdict_is_pending_and_drafting_is_kept() -> None:
    seen = timeline_of(
        [
            record(1.0, "sent", 1),
            record(2.0, "grown", rows=4, seconds=0.5),
            record(2.0, "grown", rows=4),
            record(3.0, "judged", 9, items=spent(1.0, 1.0)),
            record(3.0, "missed", 9),
        ],
        [1.0, 1.0],
    )
    assert seen == Timeline(1, (), (1.0,), ((1.5, 2.0, 4),), ())


def test_after_a_miss_the_next_token_is_waited_for() -> None:
    """Tokens at 1, 3, 6 and 7, the second and the last of them misses; the window ends at 7."""
    times = [record(at, "emitted") for at in (1.0, 3.0, 6.0, 7.0)]
    missed = [record(at, "missed") for at in (3.0, 7.0)]
    seen = timeline_of([*times[:2], missed[0], *times[2:], missed[1]], [1.0, 1.0])
    assert seen.misses == (3.0, 7.0)
    found = breakdown(seen)
    assert found is not None
    assert (found.seconds, found.missed) == (6.0, 3.0)


def test_a_clock_that_is_a_little_off_gives_links_of_no_time() -> None:
    records = [record(0.0, "sent", 1), record(1.0, "judged", 1, items=spent(0.0, 1.1))]
    (segment,) = timeline_of(records, [1.0, 1.0]).segments
    assert segment.visits == (StageVisit(0.0, 0.0, 1.1),)


def segment(seq: int, *passes: tuple[float, float, float]) -> VerifiedSegment:
    met = tuple(StageVisit(*each) for each in passes)
    return VerifiedSegment(seq, 1, met[0].arrived, met[-1].end, met)


def seen(*segments: VerifiedSegment) -> Timeline:
    return Timeline(1, segments, (), (), ())


def test_segments_of_one_pass_are_one_work_and_others_come_after_each_other() -> None:
    together = segment(1, (0, 1.0, 3.0)), segment(2, (0, 1.1, 3.1))
    later = segment(3, (0, 2.9, 3.4))
    dead = segment(4, (0, 3.0, 3.0))
    first, second = forward_passes(seen(*together, dead, later), 0)
    assert first == (1.0, 3.0, together)
    assert (second.begin, second.segments) == (3.0, (later,))
    assert second.end == pytest.approx(3.5)


def test_equal_passes_one_after_the_other_are_two() -> None:
    found = forward_passes(seen(segment(1, (0, 1.0, 3.0)), segment(2, (0, 2.5, 4.5))), 0)
    assert [(work.begin, work.end) for work in found] == [(1.0, 3.0), (3.0, 5.0)]


def test_the_split_of_one_segment_at_a_time() -> None:
    """Plain on two stages: links of 1 s, passes of 2 s, drafting of 1 s before each sending."""
    records, at = [record(-1.0, "emitted")], 0.0
    for seq in range(3):
        records.append(record(at, "grown", seconds=1.0))
        records.append(record(at, "sent", seq))
        records.append(record(at + 7.0, "judged", seq, items=spent(0, 2.0, 0, 2.0)))
        records.append(record(at + 7.0, "emitted"))
        at += 8.0
    found = breakdown(timeline_of(records, [1.0] * 3))
    assert found is not None
    assert found.seconds == pytest.approx(24.0)
    holder, first, second = found.shares
    assert holder == pytest.approx(Shares(0.0, link=3.0, drafting=3.0, waiting=18.0))
    assert first == pytest.approx(Shares(6.0, link=3.0, drafting=3.0, waiting=12.0))
    assert second == pytest.approx(Shares(6.0, link=3.0, drafting=3.0, waiting=12.0))


def test_a_drafter_at_work_is_no_reason_while_a_segment_is_on_its_way() -> None:
    """The drafter forward_passes all the time; stage 2 waits for stage 1, not for the drafter."""
    records = [
        record(0.0, "emitted"),
        record(0.0, "sent", 1),
        record(6.0, "grown", seconds=6.0),
        record(6.0, "judged", 1, items=spent(0, 2.0, 0, 4.0)),
        record(6.0, "emitted"),
    ]
    found = breakdown(timeline_of(records, [1.0] * 3))
    assert found is not None
    _, first, second = found.shares
    assert first == pytest.approx(Shares(2.0, 0.0, drafting=4.0, waiting=0.0))
    assert second == pytest.approx(Shares(4.0, 0.0, drafting=0.0, waiting=2.0))


def test_what_is_not_known_any_more_is_not_looked_at() -> None:
    """The segment that left at 3 came back after the end: only what was before it counts."""
    records = [
        record(0.0, "emitted"),
        record(0.0, "sent", 1),
        record(3.0, "sent", 2),
        record(4.0, "judged", 1, items=spent(0, 4.0)),
        record(4.0, "emitted"),
    ]
    found = breakdown(timeline_of(records, [1.0, 1.0]))
    assert found is not None
    assert found.seconds == 3.0
    assert found.shares[1].compute == 3.0


@pytest.mark.parametrize("moments", [[], [1.0]])
def test_nothing_to_split(moments: Sequence[float]) -> None:
    assert breakdown(timeline_of([record(at, "emitted") for at in moments], [1.0, 1.0])) is None


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 6, st.integers(0, 30)), min_size=1, max_size=20))
def test_shares_add_up_whatever_happened(steps: list[tuple[int, ...]]) -> None:
    records, at = [record(0.0, "emitted")], 0.0
    for seq, (gap, wait1, pass1, wait2, pass2, links, drafted) in enumerate(steps):
        at += gap / 1e3
        records.append(record(at, "sent", seq))
        end = at + (wait1 + pass1 + wait2 + pass2 + links) / 1e3
        times = spent(*(each / 1e3 for each in (wait1, pass1, wait2, pass2)))
        records.append(record(end, "judged", seq, items=times))
        records.append(record(end, "grown", seconds=drafted / 1e3))
        records.append(record(end + 1e-3, "emitted"))
    records.sort(key=lambda each: each.at)
    found = breakdown(timeline_of(records, [1.0, 3.0, 2.0]))
    if found is None:
        return
    for shares in found.shares:
        assert sum(shares) == pytest.approx(found.seconds)
        assert min(shares) > -1e-9
