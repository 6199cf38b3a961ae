"""Which nodes the policies choose, for chosen trees."""

import math
import typing

import pytest

from gardener.cli import options
from gardener.policy import POLICIES, Gardener, Plain, Serial, Shape, View
from gardener.tree import Tree

SHAPE = Shape(rows=3, window=2, floor=0.2, batch=2)


def tree(*nodes: tuple[int, float]) -> Tree:
    """Root 0, then a node for each (parent, probability given the parent)."""
    built = Tree(0, 100)
    for token, (parent, probability) in enumerate(nodes):
        built.graft(parent, token, built[parent].score + math.log(probability))
    return built


def view(
    grown: Tree,
    sent: typing.Collection[int] = (),
    expanded: typing.Collection[int] = (),
    flying: int = 0,
    growing: bool = False,
    reach: int = 99,
) -> View:
    return View(grown, sent, expanded, flying, growing, reach)


BRANCHES = tree((0, 0.6), (0, 0.3), (1, 0.9), (2, 0.9), (3, 0.9), (0, 0.05))
"""Paths: 1 .6, 2 .3, 3 .54, 4 .27, 5 .486, 6 .05."""


def test_plain_sends_the_root_once() -> None:
    assert Plain(SHAPE).choose(view(BRANCHES)) == [0]
    assert Plain(SHAPE).choose(view(BRANCHES, sent={0})) == []
    assert Plain(SHAPE).grow(view(BRANCHES)) == []


def test_gardener_takes_the_root_and_then_the_likeliest_paths() -> None:
    assert Gardener(SHAPE).choose(view(BRANCHES)) == [0, 1, 3]
    assert Gardener(SHAPE).choose(view(BRANCHES, sent={0, 1, 3})) == [5, 2, 4]


def test_nodes_below_the_floor_are_not_worth_a_row() -> None:
    assert Gardener(SHAPE).choose(view(BRANCHES, sent={0, 1, 2, 3, 4, 5})) == []


def test_gardener_keeps_to_its_window_and_does_not_wait_for_the_drafter() -> None:
    assert Gardener(SHAPE).choose(view(BRANCHES, flying=2)) == []
    assert Gardener(SHAPE).choose(view(BRANCHES, flying=1, growing=True)) != []


def test_serial_waits_for_both() -> None:
    assert Serial(SHAPE).choose(view(BRANCHES, flying=1)) == []
    assert Serial(SHAPE).choose(view(BRANCHES, growing=True)) == []
    assert Serial(SHAPE).choose(view(BRANCHES)) == [0, 1, 3]


def test_a_sure_child_comes_after_its_parent() -> None:
    chain = tree((0, 1.0), (1, 1.0), (2, 1.0))
    assert Gardener(SHAPE).choose(view(chain)) == [0, 1, 2]


def test_rows_too_deep_to_be_emitted_are_not_chosen() -> None:
    chain = tree((0, 0.9), (1, 0.9), (2, 0.9))
    assert Gardener(SHAPE).choose(view(chain, reach=2)) == [0, 1]
    assert Gardener(SHAPE).choose(view(chain, reach=1)) == [0]


def test_the_likeliest_leaves_are_expanded_first() -> None:
    assert Gardener(SHAPE).grow(view(BRANCHES, sent={0})) == [0, 1]
    assert Gardener(SHAPE).grow(view(BRANCHES, sent={0}, expanded={0, 1})) == [3, 5]


def test_enough_is_enough() -> None:
    wide = tree(*((0, 0.9 - token / 100) for token in range(7)))
    assert Gardener(SHAPE).grow(view(wide)) == [0]  # what follows the root is always wanted
    assert Gardener(SHAPE).grow(view(wide, expanded={0})) == []
    assert Serial(SHAPE).grow(view(wide, expanded={0, 1, 2})) == []
    assert Serial(SHAPE).grow(view(wide, expanded={0, 2})) == [1]


@pytest.mark.parametrize(
    "wrong", [{"rows": 0}, {"window": 0}, {"batch": 0}, {"floor": 0.0}, {"floor": 1.5}]
)
def test_impossible_sizes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="start at 1"):
        Shape(**wrong)  # type: ignore[arg-type]


def test_the_command_line_knows_all_policies() -> None:
    assert list(typing.get_args(options.PolicyName)) == list(POLICIES)
