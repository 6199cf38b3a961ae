"""What an evaluation runs: rings, and how many answers."""

import pytest

from gardener.errors import UserError
from gardener.evaluation.datasets import Conversation
from gardener.evaluation.plan import Place, Plan, drafted, places


def test_rings_by_option() -> None:
    assert places(None, None, None, "x") == (Place("local", 2),)
    assert places("1, 2,1", None, None, "x") == (Place("local", 1), Place("local", 2))
    assert places(None, "oak:7001", None, "x") == (Place("peer", peer="oak:7001"),)
    found = places(None, None, "2,4", "gpu,a/b.toml")
    assert [str(each) for each in found] == [
        "simulated 2 gpu",
        "simulated 4 gpu",
        "simulated 2 b",
        "simulated 4 b",
    ]
    assert str(Place("local", 2)) == "local 2"
    assert str(Place("peer", peer="oak:7001")) == "ring at oak:7001"


def test_every_ring_with_these_drafters_and_with_those() -> None:
    rings = places("1,2", None, None, "x")
    assert drafted(rings, ["eagle"]) == rings
    assert [str(each) for each in drafted(rings, ["auto", "eagle"])] == [
        "local 1, draft auto",
        "local 1, draft eagle",
        "local 2, draft auto",
        "local 2, draft eagle",
    ]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("2", "oak:1", None, "x"), "--local and --peer name two kinds of ring"),
        (("2", None, "4", "x"), "--local and --simulate"),
        (("two", None, None, "x"), "--local takes a number of stages from 1.*'two'"),
        ((None, None, "0", "x"), "--simulate takes a number of stages from 1.*'0'"),
        ((None, None, ",", "x"), "--simulate is empty"),
        ((None, None, "2", " "), "--profile is empty"),
    ],
)
def test_rings_that_make_no_sense(
    options: tuple[str | None, str | None, str | None, str], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        places(*options)


def test_how_many_answers_a_ring_gives() -> None:
    rows = (Conversation("a", 1, ("x", "y")), Conversation("a", 2, ("z",)))
    assert Plan(rows, ("plain", "serial"), 8, 3).runs == 18
