import pytest

from gardener.decoding.events import (
    Judged,
    Room,
)
from gardener.decoding.limits import Limits
from gardener.decoding.policy import Bounds, Plain
from gardener.decoding.speculation import Speculation
from gardener.holder.outage import LossReport, complete, ring_broke, stage_failed, stalled
from gardener.protocol.messages import Verdict
from gardener.protocol.reports import Failed, Lost

BROKE = "the connection broke"


def advise(stage: int) -> str:
    return f"mend {stage}"


def decoding(emitted: int = 0) -> Speculation:
    """A request in the middle. Under way is its prefill, or the root after `emitted` tokens."""
    made = Speculation(7, (1, 2, 3), Plain(Bounds()), Limits(50, 100), chunk=2)
    made.handle(Room())
    for seq in range(emitted):
        ids = (2 + seq,)
        assert made.flights.oldest is not None
        assert made.flights.oldest.seq == seq
        made.handle(Judged(Verdict(7, seq, ids, (9,), ())))
        made.handle(Room())
    return made


def before(stage: int, seq: int, request: int = 7, why: str = BROKE) -> LossReport:
    return LossReport(Lost(stage, request, seq, 100_000, why), before=True)


def after(stage: int, seq: int, request: int = 7, why: str = BROKE) -> LossReport:
    return LossReport(Lost(stage, request, seq, 200_000, why), before=False)


@pytest.mark.parametrize(
    ("reports", "doing"),
    [
        ([before(2, 3), after(2, 2)], "computed segment 3 (1 row)"),
        ([before(2, 3)], "computed segment 3 (1 row)"),
        ([before(2, 2), after(2, 2)], "waited for segment 3 (1 row)"),
        ([before(2, 9, request=6), after(2, 9, request=6)], "waited for segment 3 (1 row)"),
        ([after(2, 2)], "computed, or waited for, segment 3 (1 row)"),
        ([after(2, 3), before(2, 3)], "waited for work"),
    ],
)
def test_what_went_in_and_out_tells_what_a_stage_did(reports: list[LossReport], doing: str) -> None:
    said = ring_broke(reports, 3, decoding(3), advise)
    silent = min(report.lost.silent for report in reports) / 1e6
    assert said == (
        f"stage 2 was lost while it {doing}, last heard {silent:.1f} s before: the connection "
        "broke; 3 tokens were written; mend 2, then repeat the request"
    )


def test_the_prompt_is_named() -> None:
    said = ring_broke([before(1, 0), after(1, -1)], 3, decoding(), advise)
    assert said == (
        "stage 1 was lost while it computed segment 0 (3 rows of the prompt), last heard 0.1 s "
        "before: the connection broke; no token was written yet; mend 1, then repeat the request"
    )


def test_one_token_is_one_token() -> None:
    assert "; 1 token was written; " in ring_broke([before(1, 1)], 3, decoding(1), advise)


def test_a_ring_may_break_while_it_is_idle() -> None:
    done = decoding(2)
    done.finished = "eos"
    for request in (None, done):
        assert ring_broke([before(3, -1), after(3, -1)], 3, request, advise) == (
            "stage 3 was lost while the ring was idle, last heard 0.1 s before: the connection "
            "broke; mend 3, then repeat the request"
        )


def test_who_heard_why_it_left_is_believed() -> None:
    reports = [before(2, 3), after(2, 2, why="it left:\n\x1b[2Jenough.")]
    assert "before: it left: ?[2Jenough; 3 tokens" in ring_broke(reports, 3, decoding(3), advise)


def test_two_stages_at_once() -> None:
    said = ring_broke([before(1, 3), after(3, 2)], 3, decoding(3), advise)
    assert said.startswith("stage 1 was lost while")
    assert "; stage 3 was lost while" in said
    assert said.endswith("; start them again, then repeat the request")


def test_neighbours_that_blame_each_other_live() -> None:
    cut = [before(3, 2, why="it went silent"), after(2, 2)]
    assert ring_broke(cut, 3, decoding(3), advise) == (
        "stage 2 and stage 3 lost each other: stage 2 says of stage 3 that it went silent, "
        "stage 3 says of stage 2 that the connection broke; 3 tokens were written; see to the "
        "network between them, then repeat the request"
    )
    home = [before(0, 2), after(3, 2)]
    assert "the holder and stage 3 lost each other" in ring_broke(home, 3, decoding(3), advise)
    assert "stage 3 lost the holder" in ring_broke(home[:1], 3, decoding(3), advise)


def test_it_is_complete_when_both_neighbours_have_spoken() -> None:
    assert not complete([], 3)
    assert not complete([before(2, 3)], 3)
    assert not complete([before(2, 3), after(3, 2)], 3)
    assert complete([before(2, 3), after(3, 2), after(2, 2)], 3)


def test_it_is_complete_when_both_ends_of_a_link_have_spoken() -> None:
    assert complete([before(2, 3), after(1, 2)], 3)
    assert complete([before(0, 3), after(3, 2)], 3)
    assert not complete([before(2, 3), after(1, 2)][1:], 3)


def test_a_stage_that_could_not_compute() -> None:
    said = stage_failed(Failed(2, 7, 3, "RuntimeError: out of memory"), decoding(3))
    assert said == (
        "stage 2 could not compute segment 3 (1 row): RuntimeError: out of memory; 3 tokens were "
        "written; stage 2 is still up: see what it printed, then repeat the request"
    )


def test_a_verdict_that_never_comes() -> None:
    assert stalled(2.5, decoding(3)) == (
        "no verdict came and no stage got further for 2.5 s, though every stage is there: segment "
        "3 (1 row) is under way, and no stage says that it computes; 3 tokens were written; see "
        "what the stages printed, then repeat the request"
    )


def still(stage: int, first: bool = True) -> LossReport:
    """The holder has lost its neighbour, and stood still."""
    return LossReport(Lost(stage, 7, 2, 10**7, BROKE), before=first, still=10.4 if first else 9.8)


def test_a_holder_that_stood_still_blames_nobody() -> None:
    said = (
        "this process stood still for 10 s, so the stages next to it gave it up; 3 tokens were "
        "written; the stages are up: repeat the request"
    )
    # Both neighbours are lost, or one of them, and the other one passes on that it was given up.
    for reports in ([still(1), still(3, False)], [still(3, False), still(1)]):
        assert ring_broke(reports, 3, decoding(3), advise) == said
    assert "this process stood still for 10 s" in ring_broke(
        [still(3, False), before(0, 2)], 3, decoding(3), advise
    )


def test_a_stage_that_is_lost_while_the_holder_stands_still_is_named() -> None:
    said = ring_broke([still(1), before(2, 3), after(2, 2)], 3, decoding(3), advise)
    assert said.startswith("stage 2 was lost while it computed segment 3 (1 row), last heard ")
    assert said.endswith("; 3 tokens were written; mend 2, then repeat the request")
