"""Spares: that stand by, step in, and are a stage."""

from dataclasses import replace
from typing import Any

import pytest
from examined import address, card, cluster, near, ring, sight, stage, view

from gardener.cli.doctor_report import as_record, now
from gardener.cluster.doctor.commands import start
from gardener.cluster.doctor.examine import examine
from gardener.cluster.doctor.finding import Severity, Subject, well
from gardener.cluster.doctor.own_keys import OwnKeys
from gardener.cluster.doctor.seen import Examined, Role, Seen, Target
from gardener.cluster.doctor.standing_in import with_spares
from gardener.net.look import Unseen, View, Why
from gardener.protocol.certificates import Identity
from gardener.protocol.sight import Sight

IDLE = "stands by for a stage that stays away"
GONE = Unseen(Why.REFUSED)


def spare(seen: View | Unseen, number: int = 1) -> Examined:
    return Examined(Target(Role.SPARE, number, address(8 + number)), seen)


def standing_by(does: str = IDLE) -> View:
    return view(card(0, 0, 0, layers=0), Sight(10**15, does=does))


def stands_in(number: int = 2, **more: Any) -> View:
    seen = stage(number, **more).view
    assert seen is not None
    return seen


def seen(*spares: Examined, two: Examined | None = None, **more: Any) -> Seen:
    stages = (stage(1), two or stage(2), stage(3))
    return with_spares(ring(*stages, of=cluster(), **more), spares)


@pytest.mark.parametrize("does", [IDLE, f"{IDLE}, for 34 s"])
def test_one_that_stands_by_is_well(does: str) -> None:
    idle = spare(standing_by(does))
    assert examine(seen(idle)) == []
    assert now(idle) == does
    assert idle.number == 1
    assert start(seen(idle), idle) == "gardener-node --spare 1"


def test_its_certificate_is_that_of_a_spare() -> None:
    own = OwnKeys(cluster().path.parent / "keys")
    for name, fits in (("spare-1", True), ("stage-2", False)):
        shown = replace(standing_by(), identity=Identity("home", name, 0.0, 1e12))
        assert (examine(seen(spare(shown), own=own)) == []) == fits


def test_one_that_is_away_is_no_reason_not_to_ask() -> None:
    (found,) = examine(seen(spare(GONE)))
    assert (found.severity, found.command) == (Severity.WARNING, "gardener-node --spare 1")
    assert well([found])


def test_one_that_is_a_stage_is_that_stage() -> None:
    """Nobody is missing, and nobody is in the wrong place; who looks is told what happened."""
    found = seen(spare(stands_in()), two=stage(2, seen=GONE))
    (only,) = examine(found)
    assert (only.severity, only.where) == (Severity.WARNING, f"stage 2 at {address(2)}")
    assert only.sentence.startswith("spare 1 is this stage now")
    assert only.command == "gardener-node --stage 2"
    assert str(found.stages[1]) == f"stage 2 at {address(9)} (spare 1)"
    assert start(found, found.stages[1]) == "gardener-node --spare 1"
    assert found.spares == ()
    rows = as_record(found, [only])["seen"]
    assert [(row["role"], row["number"], row["spare"], row["relieved_by"]) for row in rows] == [
        ("stage", 1, None, None),
        ("stage", 2, 1, None),
        ("stage", 3, None, None),
        ("stage", 2, None, 1),
        ("holder", None, None, None),
    ]
    assert now(found.relieved[0]) == "nothing listens there; spare 1 is in its place"


def test_what_is_wrong_with_a_stage_is_wrong_with_a_spare_in_its_place() -> None:
    found = examine(seen(spare(stands_in(dtype="float16")), two=stage(2, seen=GONE)))
    assert found[0].where == f"stage 2 at {address(9)} (spare 1)"
    assert found[0].command == "gardener-node --spare 1"


def test_a_stage_that_is_back_waits_for_the_spare_to_go() -> None:
    back = stage(2, upstream=None, downstream=None, obstacle="stage 3 already serves stage 2")
    found = seen(spare(stands_in()), two=back)
    (only,) = examine(found)
    assert only.severity is Severity.WARNING
    assert "it waits until that spare is gone" in only.sentence
    assert now(found.relieved[0]) == "waits; spare 1 is in its place"


def test_a_stage_that_is_back_in_its_place_leaves_the_spare_to_be_started_anew() -> None:
    found = seen(spare(stands_in(upstream=None, downstream=None)))
    (only,) = examine(found)
    assert (only.severity, only.command) == (Severity.WARNING, "gardener-node --spare 1")
    assert "it has become stage 2, and another one is that" in only.sentence


def test_one_that_steps_in_is_waited_for() -> None:
    loads = spare(standing_by("is loading its weights, 34 %"))
    one = stage(1, downstream=None, obstacle="waiting for stage 2")
    stages = (one, stage(2, seen=GONE), stage(3, upstream=None))
    findings = examine(with_spares(ring(*stages, of=cluster()), [loads]))
    assert {each.severity for each in findings} == {Severity.WAIT}
    assert {each.subject for each in findings} == {Subject.REACH, Subject.PHASE}
    assert not well(findings)


def test_two_spares_can_be_two_stages() -> None:
    stages = (stage(1), stage(2, seen=GONE), stage(3, seen=GONE))
    spares = [spare(stands_in(3), 1), spare(stands_in(2, downstream=near(3)), 2)]
    found = with_spares(ring(*stages, of=cluster()), spares)
    assert [each.spare for each in found.stages] == [0, 2, 1]
    assert well(examine(found))
    assert sight(2, 3).downstream == near(3)
