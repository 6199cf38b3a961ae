"""Which nodes the policies send and ask for, for chosen trees, costs and events."""

import math
import random
import typing
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gardener.decoding.costs import Costs
from gardener.decoding.curves import Curve, Hop
from gardener.decoding.policy import (
    MAIN,
    POLICIES,
    Alternating,
    Bounds,
    Chunked,
    Chunked80,
    FlowSpec,
    FlowSpec80,
    Gardener,
    PipeDec,
    PipeDec16,
    Plain,
    Policy,
    Serial,
    View,
    default_comparison,
    default_policy,
    make,
)
from gardener.decoding.policy.steady import SteadySize
from gardener.decoding.tree import Node, Tree

SHAPE = Bounds()
SMALL = Bounds(rows=3, window=2, floor=0.2, batch=2)

FLAT = ((1, 0.010),)
STEEP = ((1, 0.010), (2, 0.020))
"""Every row costs as much as the first."""
BENT = ((1, 0.010), (4, 0.010), (5, 0.020), (64, 0.200))
"""Four rows cost what one does."""


def tree(*nodes: tuple[int, float]) -> Tree:
    """Root 0, then a node for each (parent, probability given the parent); tokens from 0."""
    built = Tree(0, 100)
    for token, (parent, probability) in enumerate(nodes):
        built.graft(parent, token, built[parent].score + math.log(probability))
    return built


def costs(curve: Iterable[tuple[int, float]] = FLAT, stages: int = 1, draft: float = 0.0) -> Costs:
    """Stages of this curve; a call of the drafter takes `draft` seconds."""
    made = Costs([Curve(tuple(curve))] * stages)
    if draft:
        made.observe_draft(8, draft)
    return made


def view(
    grown: Tree,
    sent: typing.Collection[int] = (),
    expanded: typing.Collection[int] = (),
    flying: int = 0,
    growing: typing.Collection[int] = (),
    reach: int = 99,
    **more: typing.Any,
) -> View:
    return View(grown, sent, expanded, flying, growing, reach, **{"costs": costs(), **more})


BRANCHES = tree((0, 0.6), (0, 0.3), (1, 0.9), (2, 0.9), (3, 0.9), (0, 0.05))
"""Paths: 1 .6, 2 .3, 3 .54, 4 .27, 5 .486, 6 .05."""

LIKELIEST = [0, 1, 3, 5, 2, 4, 6]
"""In that order."""


# --- plain, and what holds for all -------------------------------------------------------------


def test_plain_sends_the_root_once() -> None:
    assert Plain(SHAPE).choose(view(BRANCHES, growing=[0])) == [0]
    assert Plain(SHAPE).choose(view(BRANCHES, sent={0})) == []
    assert Plain(SHAPE).grow(view(BRANCHES)) == []


@pytest.mark.parametrize("name", POLICIES)
def test_a_root_without_guesses_leaves_alone(name: str) -> None:
    assert make(name, SHAPE).choose(view(Tree(0, 1), expanded={0})) == [0]


@pytest.mark.parametrize("name", POLICIES)
def test_rows_too_deep_to_be_emitted_are_not_chosen(name: str) -> None:
    chain, ring = tree((0, 0.9), (1, 0.9), (2, 0.9)), costs(stages=4)
    for reach in (1, 2, 3):
        policy, sent = make(name, SHAPE), list[int]()
        while rows := policy.choose(view(chain, sent, range(4), reach=reach, costs=ring)):
            sent += rows
        assert sent == ([0] if name == "plain" else list(range(reach)))


@pytest.mark.parametrize(
    "wrong", [{"rows": 0}, {"window": 0}, {"batch": 0}, {"floor": 0.0}, {"floor": 1.5}]
)
def test_impossible_sizes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="start at 1"):
        Bounds(**wrong)  # type: ignore[arg-type]


# --- serial ------------------------------------------------------------------------------------


def test_serial_waits_for_the_verdict_and_for_the_drafter() -> None:
    assert Serial(SHAPE).choose(view(BRANCHES, flying=1)) == []
    assert Serial(SHAPE).choose(view(BRANCHES, growing=[5])) == []
    assert Serial(SHAPE).choose(view(BRANCHES, sent={0})) == []
    assert Serial(SHAPE).choose(view(BRANCHES)) == LIKELIEST


@pytest.mark.parametrize(
    ("curve", "rows"),
    [
        (FLAT, 7),  # nothing costs anything more
        (BENT, 4),  # 2.63 tokens in 10 ms, 2.93 in 20 ms
        (((1, 0.010), (6, 0.010), (7, 0.0102)), 6),  # .05 is less than 2 in 100 of 3.2 tokens
        (STEEP, 1),  # 1 token in 10 ms, 1.6 in 20 ms
    ],
)
def test_serial_sends_as_many_rows_as_bring_the_most_tokens_per_second(
    curve: Sequence[tuple[int, float]], rows: int
) -> None:
    for stages in (1, 4):
        seen = view(BRANCHES, costs=costs(curve, stages))
        assert Serial(SHAPE).choose(seen) == LIKELIEST[:rows]


def test_serial_sends_more_where_drafting_took_its_time_already() -> None:
    # 10 ms per row and 50 ms for the tree: 2.63 tokens in 90 ms, 2.93 in 100, 3.20 in 110.
    slow = costs(STEEP, draft=0.050)
    assert Serial(SHAPE).choose(view(BRANCHES, expanded={0}, costs=slow)) == LIKELIEST[:5]
    free = view(BRANCHES, expanded={0}, costs=slow, instant=True)
    assert Serial(SHAPE).choose(free) == [0]


def test_serial_keeps_to_the_bounds_of_the_user() -> None:
    assert Serial(SMALL).choose(view(BRANCHES)) == [0, 1, 3]
    assert Serial(replace(SMALL, rows=64)).choose(view(BRANCHES)) == [0, 1, 3, 5, 2, 4]


def test_serial_drafts_the_likeliest_nodes_as_long_as_that_is_worth_it() -> None:
    for draft, worth in ((0.0, True), (1e-5, True), (10.0, False)):
        policy, price = Serial(Bounds(batch=2)), costs(draft=draft)
        for expanded, next_ones in (((), [0, 1]), ((0, 1), [3, 5]), ((0, 1, 3, 5), [2, 4])):
            asked = policy.grow(view(BRANCHES, expanded=expanded, costs=price))
            assert asked == (next_ones if worth else [])
    dear = costs(draft=10.0)
    assert Serial(Bounds(batch=2)).grow(view(BRANCHES, instant=True, costs=dear)) == [0, 1]
    assert Serial(SHAPE).grow(view(BRANCHES, expanded=range(7))) == []


def test_serial_drafts_nothing_that_it_would_not_send() -> None:
    assert Serial(SHAPE).grow(view(BRANCHES, costs=costs(STEEP))) == [0]
    assert Serial(SHAPE).grow(view(BRANCHES, expanded={0}, costs=costs(STEEP))) == []


@pytest.mark.parametrize("policy", [Serial(SHAPE), Chunked(SHAPE)])
def test_nothing_is_drafted_while_a_tree_is_under_way(policy: Policy) -> None:
    assert policy.grow(view(BRANCHES, sent=range(7), flying=1)) == []
    assert policy.grow(view(BRANCHES, flying=1)) == []


# --- chunked -----------------------------------------------------------------------------------


def far(stages: int) -> Costs:
    """A ring with long links: more segments cost little beside the round trip."""
    return Costs.flat(stages, 0.010, hop=Hop(1.0))


def bushy() -> Tree:
    """The likeliest in order: 0, 1 .6, 3 .54, 5 .486, 2 .3, 4 .27, 7 .243, 6 .05."""
    return tree((0, 0.6), (0, 0.3), (1, 0.9), (2, 0.9), (3, 0.9), (0, 0.05), (4, 0.9))


@pytest.mark.parametrize(
    ("stages", "pieces"),
    [
        (1, [[0, 1, 3, 5], [2, 4, 7, 6]]),
        (2, [[0, 1, 3], [5, 2, 4], [7, 6]]),
        (3, [[0, 1], [3, 5], [2, 4], [7, 6]]),
        (9, [[0], [1], [3], [5], [2], [4], [7], [6]]),
    ],
)
def test_chunked_cuts_the_tree_into_a_piece_more_than_stages(
    stages: int, pieces: list[list[int]]
) -> None:
    policy, ring = Chunked(SHAPE), far(stages)
    assert policy.window(ring) == stages + 1
    sent: list[int] = []
    for flying, piece in enumerate(pieces):
        assert policy.choose(view(bushy(), sent, flying=flying, costs=ring)) == piece
        sent += piece
    assert policy.choose(view(bushy(), sent, flying=len(pieces), costs=ring)) == []


@pytest.mark.parametrize(
    ("curve", "stages", "pieces"),
    [
        # 20 ms round and 10 for each further segment: 3.49 tokens in 40 ms, 2.63 in 30.
        (FLAT, 2, [[0, 1], [3, 5]]),
        # A second row takes as long as a first one: one token in 20 ms, 1.6 in 30, 2.14 in 40.
        (STEEP, 2, [[0], [1], [3]]),
        (STEEP, 1, [[0]]),
    ],
)
def test_chunked_sends_as_many_rows_as_bring_the_most_tokens_per_second_in_segments(
    curve: Sequence[tuple[int, float]], stages: int, pieces: list[list[int]]
) -> None:
    policy, ring, sent = Chunked(SHAPE), costs(curve, stages), list[int]()
    for piece in pieces:
        assert policy.choose(view(bushy(), sent, costs=ring)) == piece
        sent += piece
    assert policy.choose(view(bushy(), sent, flying=1, costs=ring)) == []


def test_the_published_chunked_sends_80_nodes_whatever_they_cost() -> None:
    grown = Growth(Chunked80(SHAPE), stages=4)
    assert [len(nodes) for nodes in grown.grow()] == [1, 10, 10, 10, 10, 10]
    assert [len(rows) for rows in grown.send()] == [17, 17, 17, 17, 13]
    assert grown.grow() == []


def test_chunked_leaves_out_what_died_before_it_left() -> None:
    policy, grown, ring = Chunked(SHAPE), bushy(), far(2)
    assert policy.choose(view(grown, costs=ring)) == [0, 1, 3]
    assert sorted(grown.advance(0)) == [2, 4, 6, 7]  # node 1 came true
    assert policy.grow(view(grown, {1, 3}, flying=1, costs=ring)) == []
    assert policy.choose(view(grown, {1, 3}, flying=1, costs=ring)) == [5]
    assert policy.choose(view(grown, {1, 3, 5}, flying=2, costs=ring)) == []


def test_chunked_begins_nothing_new_until_all_pieces_are_back() -> None:
    policy, grown, ring = Chunked(SHAPE), bushy(), far(2)
    policy.choose(view(grown, costs=ring))
    grown.advance(99)  # a miss: node 8
    for flying in (2, 1):
        assert policy.choose(view(grown, flying=flying, costs=ring)) == []
        assert policy.grow(view(grown, flying=flying, costs=ring)) == []
    assert policy.grow(view(grown, costs=ring)) == [8]
    assert policy.choose(view(grown, growing=[8], expanded=[8], costs=ring)) == []
    grown.graft(8, 1, math.log(0.9))
    assert policy.choose(view(grown, expanded=[8], costs=ring)) == [8]
    assert policy.choose(view(grown, {8}, [8], flying=1, costs=ring)) == [9]


# --- pipedec -----------------------------------------------------------------------------------


def levels() -> Tree:
    """20 children of the root (1 to 20), and 3 below each of the first 10 (21 to 50)."""
    first = [(0, 0.10 - child / 400) for child in range(20)]
    second = [(1 + parent, 0.5 / (1 + rank)) for parent in range(10) for rank in range(3)]
    return tree(*first, *second)


def test_pipedec_sends_the_root_first_and_at_once() -> None:
    policy = PipeDec(SHAPE)
    assert policy.choose(view(Tree(0, 1))) == [0]
    assert policy.choose(view(levels(), growing=[0], flying=99)) == [0]
    assert policy.grow(view(Tree(0, 1))) == [0]
    assert policy.grow(view(Tree(0, 1), expanded={0})) == []


def test_pipedec_sends_a_level_of_at_most_16_per_tick_and_drafts_the_next_meanwhile() -> None:
    policy, grown, ring = PipeDec16(SHAPE), levels(), costs(stages=4)
    first = policy.choose(view(grown, {0}, {0}, flying=1, costs=ring))
    assert first == list(range(1, 17))  # the likeliest; 17 to 20 will never follow
    sent = {0, *first}
    assert sorted(policy.grow(view(grown, sent, {0}, flying=2, costs=ring))) == first
    second = policy.choose(view(grown, sent, {0, *first}, flying=2, costs=ring))
    scores = [grown[node].score for node in second]
    assert len(second) == 16
    assert {grown[node].parent for node in second} <= set(first)
    assert scores == sorted(scores, reverse=True)
    left = set(range(21, 51)) - set(second)
    assert min(scores) >= max(grown[node].score for node in left)
    sent |= set(second)
    assert policy.choose(view(grown, sent, sent, flying=3, costs=ring)) == []
    assert sorted(policy.grow(view(grown, sent, {0, *first}, flying=3))) == sorted(second)


@pytest.mark.parametrize(("curve", "rows"), [(STEEP, 1), (BENT, 4), (FLAT, 20)])
def test_a_level_of_pipedec_has_as_many_rows_as_pay(
    curve: Sequence[tuple[int, float]], rows: int
) -> None:
    level = PipeDec(SHAPE).choose(view(levels(), {0}, {0}, flying=1, costs=costs(curve, 4)))
    assert level == list(range(1, rows + 1))


def test_pipedec_waits_for_its_drafter_and_keeps_to_its_window() -> None:
    policy, ring = PipeDec(SHAPE), costs(stages=2)
    assert policy.window(ring) == 3
    assert policy.choose(view(levels(), {0}, {0}, growing=[0], costs=ring)) == []
    assert policy.choose(view(levels(), {0}, {0}, flying=3, costs=ring)) == []
    assert policy.choose(view(levels(), {0}, {0}, flying=2, costs=ring)) != []


def test_pipedec_goes_on_below_what_came_true_and_begins_anew_after_a_miss() -> None:
    policy, grown = PipeDec(SHAPE), levels()
    sent = set(range(17))
    grown.advance(0)  # node 1
    alive = {node.id for node in grown}
    assert policy.choose(view(grown, sent & alive, alive, flying=1)) == [21, 22, 23]
    grown.advance(99)
    assert policy.choose(view(grown, flying=2, growing=[1])) == [51]
    assert policy.grow(view(grown, flying=2)) == [51]


# --- flowspec ----------------------------------------------------------------------------------


class Growth:
    """A tree below FlowSpec, whose drafter gives ten guesses for each node at once."""

    def __init__(self, policy: Policy, stages: int = 4) -> None:
        self.policy = policy
        self.tree = Tree(0, 100)
        self.sent: set[int] = set()
        self.expanded: set[int] = set()
        self.flying = 0
        self.costs = costs(STEEP, stages)
        self._chance = random.Random(4)

    def view(self, growing: Sequence[int] = ()) -> View:
        alive = {node.id for node in self.tree}
        return view(
            self.tree, self.sent & alive, self.expanded, self.flying, growing, costs=self.costs
        )

    def grow(self) -> list[list[int]]:
        """Until FlowSpec asks for nothing more; what it asked for."""
        asked = []
        while nodes := self.policy.grow(self.view()):
            asked.append(nodes)
            self.expanded |= set(nodes)
            for node in nodes:
                score = self.tree[node].score
                for token in range(10):
                    share = self._chance.uniform(0.5, 0.7) * 0.4**token
                    self.tree.graft(node, token, score + math.log(share))
        return asked

    def send(self) -> list[list[int]]:
        """Until it chooses nothing more."""
        segments = []
        while rows := self.policy.choose(self.view()):
            segments.append(rows)
            self.sent |= set(rows)
            self.flying += 1
        return segments

    def best(self, nodes: int) -> list[int]:
        """The root and the likeliest, down to depth 6."""
        found: list[Node] = [node for node in self.tree if self.tree.depth(node.id) <= 6]
        found.sort(key=lambda node: -node.score)
        return [node.id for node in found[: nodes + 1]]


def test_flowspec_drafts_six_levels_of_its_ten_best_nodes() -> None:
    growth = Growth(FlowSpec80(SHAPE))
    asked = growth.grow()
    assert [len(nodes) for nodes in asked] == [1, 10, 10, 10, 10, 10]
    for depth, nodes in enumerate(asked):
        assert {growth.tree.depth(node) for node in nodes} == {depth}
        level = [node for node in growth.tree if growth.tree.depth(node.id) == depth]
        level.sort(key=lambda node: -node.score)
        assert nodes == [node.id for node in level[:10]]


def test_flowspec_sends_80_nodes_in_segments_of_16_by_score() -> None:
    growth = Growth(FlowSpec80(SHAPE))
    assert growth.policy.choose(growth.view(growing=[0])) == []
    growth.grow()
    segments = growth.send()
    rows = [node for segment in segments for node in segment]
    assert [len(segment) for segment in segments] == [16] * 5 + [1]
    assert rows == growth.best(80)
    assert growth.grow() == []
    assert growth.send() == []


def test_flowspec_redrafts_64_after_an_accept_and_sends_what_is_new_as_one_segment() -> None:
    growth = Growth(FlowSpec80(SHAPE))
    growth.grow()
    growth.send()
    token = max(growth.tree, key=lambda node: (node.parent == 0, node.score)).token
    growth.tree.advance(token)
    growth.flying -= 1
    asked = growth.grow()
    assert max(growth.tree.depth(node) for nodes in asked for node in nodes) == 5
    alive = [node for node in growth.sent if node in growth.tree]
    new = [node for node in growth.best(64) if node not in growth.sent]
    assert new
    assert len(alive) > 1
    assert growth.send() == [new]
    assert growth.grow() == []


def test_flowspec_sends_the_rest_of_a_tree_before_what_an_accept_brought() -> None:
    growth = Growth(FlowSpec80(SHAPE))
    growth.grow()
    planned = growth.best(80)
    growth.sent |= set(growth.policy.choose(growth.view()))
    growth.tree.advance(0)
    assert growth.policy.grow(growth.view()) == []
    rest = [node for node in planned[16:32] if node in growth.tree]
    assert growth.policy.choose(growth.view()) == rest


@pytest.mark.parametrize(("curve", "size"), [(STEEP, 1), (BENT, 4)])
def test_segments_of_flowspec_have_as_many_rows_as_pay(
    curve: Sequence[tuple[int, float]], size: int
) -> None:
    growth = Growth(FlowSpec(SHAPE))
    growth.costs = costs(curve, 4)
    growth.grow()
    assert [len(rows) for rows in growth.send()] == [size] * 5 + [1]
    # What an accept brings goes out in segments of that size, too.
    likeliest = max((n for n in growth.tree if n.parent == 0), key=lambda node: node.score)
    growth.tree.advance(likeliest.token)
    growth.grow()
    further = growth.send()
    assert sum(map(len, further)) > 0
    assert max(map(len, further)) <= size


def test_flowspec_flushes_everything_after_a_miss() -> None:
    growth = Growth(FlowSpec80(SHAPE))
    growth.grow()
    growth.sent |= set(growth.policy.choose(growth.view()))  # four segments are still to go
    growth.tree.advance(99)
    root = growth.tree.root
    assert growth.policy.choose(growth.view(growing=[root])) == []
    asked = growth.grow()
    assert asked[0] == [root]
    segments = growth.send()
    assert segments[0][0] == root
    assert [node for segment in segments for node in segment] == growth.best(80)


def test_flowspec_keeps_to_its_window() -> None:
    growth = Growth(FlowSpec80(SHAPE))
    growth.grow()
    growth.flying = growth.policy.window(growth.costs)
    assert growth.send() == []


# --- gardener ----------------------------------------------------------------------------------

grown_trees = st.lists(st.tuples(st.integers(0, 1000), st.floats(0.01, 1.0)), max_size=40).map(
    lambda nodes: tree(*((parent % (at + 1), share) for at, (parent, share) in enumerate(nodes)))
)
curves = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=6).map(
    lambda seconds: tuple((1 << at, each) for at, each in enumerate(sorted(seconds)))
)
growing_sets = st.lists(st.integers(0, 2**41 - 1), min_size=9, max_size=9)
"""Nine sets of nodes, a bit for each node: in less time than `st.sets` takes."""


@settings(deadline=None, max_examples=60)
@given(grown_trees, curves, st.booleans(), st.integers(0, 5), growing_sets)
def test_gardener_sends_the_likeliest_nodes_with_the_root_at_their_head(
    grown: Tree, curve: tuple[tuple[int, float], ...], overdue: bool, rows: int, asked: list[int]
) -> None:
    shape, sent = Bounds(rows=rows or None, window=9), list[int]()
    likeliest = [node.id for node in view(grown).best(lambda node: True, 99, shape.floor)]
    for flying, drawn in enumerate(asked):
        growing = [node for node in range(41) if drawn >> node & 1]
        seen = view(grown, sent, (), flying, growing, overdue=overdue, costs=costs(curve))
        chosen = Gardener(shape).choose(seen)
        if overdue and not flying:
            assert chosen[:1] == [0], "the root has waited for long enough"
        assert len(chosen) <= shape.most
        sent += chosen
        assert sent == likeliest[: len(sent)]


def test_gardener_goes_on_with_what_was_not_sent() -> None:
    assert Gardener(SMALL).choose(view(BRANCHES)) == [0, 1, 3]
    assert Gardener(SMALL).choose(view(BRANCHES, sent={0, 1, 3}, flying=1)) == [5, 2, 4]
    assert Gardener(SMALL).choose(view(BRANCHES, sent=range(6), flying=1)) == []  # 6: the floor


def test_a_sure_child_comes_after_its_parent() -> None:
    chain = tree((0, 1.0), (1, 1.0), (2, 1.0))
    assert Gardener(SMALL).choose(view(chain)) == [0, 1, 2]


def test_gardener_sends_all_where_rows_are_free_and_the_root_alone_where_nothing_pays() -> None:
    assert Gardener(SHAPE).choose(view(BRANCHES)) == LIKELIEST
    assert Gardener(SHAPE).choose(view(BRANCHES, costs=costs(STEEP))) == [0]
    wide = tree(*((0, 0.02) for _ in range(40)))
    few = costs(((1, 0.010), (64, 0.100)))
    assert Gardener(SHAPE).choose(view(wide, costs=few)) == [0]


def test_gardener_sends_fewer_rows_the_more_they_cost() -> None:
    wide = tree(*((0, 0.4 * 0.8**rank) for rank in range(20)), *((1, 0.9), (21, 0.9)) * 2)
    sizes = []
    for step in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.01):
        ring = costs(((1, 0.010), (64, 0.010 + 63 * step)))
        sizes.append(len(Gardener(SHAPE).choose(view(wide, costs=ring))))
    assert sizes[0] == len(view(wide).unsent(99, SHAPE.floor))
    assert all(more >= fewer for more, fewer in pairwise(sizes))
    assert len(set(sizes)) > 3
    assert sizes[-1] == 1


def test_gardener_fills_what_the_slowest_stage_computes_at_no_cost() -> None:
    chain = tree(*((node, 0.9) for node in range(12)))
    assert Gardener(SHAPE).choose(view(chain, costs=costs(BENT))) == [0, 1, 2, 3]
    assert Gardener(SHAPE).choose(view(chain, range(4), costs=costs(BENT))) == [4, 5, 6, 7]
    mixed = Costs([Curve(FLAT), Curve(BENT), Curve(FLAT)])
    assert Gardener(SHAPE).choose(view(chain, costs=mixed)) == [0, 1, 2, 3]


def test_gardener_keeps_to_its_window() -> None:
    for flying, sends in ((0, True), (1, True), (2, False), (9, False)):
        chosen = Gardener(SMALL).choose(view(BRANCHES, sent={0}, flying=flying))
        assert (chosen != []) == sends
    # The root is no speculation.
    assert Gardener(SMALL).choose(view(BRANCHES, flying=2))[:1] == [0]


@pytest.mark.parametrize("stages", [1, 2, 4, 16])
def test_the_window_keeps_all_stages_busy(stages: int) -> None:
    assert stages <= Gardener(SHAPE).window(costs(stages=stages)) <= stages + 2
    slow = Costs([Curve(FLAT), Curve(((1, 0.030),)), Curve(FLAT)])  # 50 ms round, 30 ms a tick
    assert 2 <= Gardener(SHAPE).window(slow) <= 3


def test_a_root_waits_for_what_follows_it_only_while_that_is_worth_it() -> None:
    for draft, waits in ((1e-5, True), (10.0, False)):
        seen = view(BRANCHES, growing=[0], costs=costs(draft=draft))
        assert (Gardener(SHAPE).choose(seen) == []) == waits
        assert Gardener(SHAPE).choose(replace(seen, overdue=True)) == LIKELIEST
        assert Gardener(SHAPE).choose(replace(seen, growing=[])) == LIKELIEST
        assert Gardener(SHAPE).choose(replace(seen, growing=[77])) == LIKELIEST, "it is dead"
    unlikely = view(BRANCHES, growing=[6], costs=costs(draft=0.005))
    assert Gardener(SHAPE).choose(unlikely) == LIKELIEST


def test_alone_in_the_ring_a_segment_is_worth_more_waiting_and_more_rows() -> None:
    ring = costs(((1, 0.010), (2, 0.012)), stages=4, draft=0.007)
    for window, waits in ((None, False), (1, True)):
        policy = Gardener(Bounds(window=window))
        assert (policy.choose(view(BRANCHES, growing=[0], costs=ring)) == []) == waits
    # Links take ten times what a stage does, and that whatever the rows.
    far = Costs([Curve(((1, 0.010), (7, 0.070)))], (Hop(0.050), Hop(0.050)))
    sizes = [len(Gardener(Bounds(window=w)).choose(view(BRANCHES, costs=far))) for w in (1, None)]
    assert sizes == [6, 1]


def test_what_is_not_the_root_does_not_wait_for_the_drafter() -> None:
    seen = view(BRANCHES, sent={0}, growing=[1, 3], costs=costs(draft=1e-5))
    assert Gardener(SHAPE).choose(seen) == LIKELIEST[1:]


def test_gardener_sends_roots_alone_where_guesses_were_seen_not_to_pay() -> None:
    seen = view(BRANCHES, speculating=False)
    assert Gardener(SHAPE).choose(seen) == [0]
    assert Gardener(SHAPE).choose(replace(seen, growing=[0], costs=costs(draft=1e-5))) == [0]
    assert Gardener(SHAPE).choose(replace(seen, sent={0})) == []
    assert Gardener(SHAPE).grow(seen) == []


def test_the_likeliest_nodes_are_expanded_first() -> None:
    assert Gardener(SMALL).grow(view(BRANCHES, sent={0})) == [0, 1]
    assert Gardener(SMALL).grow(view(BRANCHES, sent={0}, expanded={0, 1})) == [3, 5]


def test_the_drafter_gets_no_more_nodes_at_a_time_than_are_worth_what_they_take() -> None:
    dear = costs()
    for nodes in (1, 2, 4, 8):
        dear.observe_draft(nodes, 0.001 * nodes)
    assert make("gardener", SHAPE).grow(view(BRANCHES, costs=dear)) == [0]
    assert make("gardener", SHAPE).grow(view(BRANCHES, costs=costs(draft=0.001))) == LIKELIEST
    instant = view(BRANCHES, costs=dear, instant=True)
    assert make("gardener", SHAPE).grow(instant) == LIKELIEST


def test_enough_is_enough() -> None:
    wide = tree(*((0, 0.9 - token / 100) for token in range(9)))
    seen = view(wide, sent={0}, costs=costs(BENT))
    asks = []
    for ready in range(1, 10):
        sent = {0, *range(1 + ready, 10)}
        asks.append(Gardener(SMALL).grow(replace(seen, sent=sent, expanded={0})) != [])
    assert asks == sorted(asks, reverse=True)
    assert asks[0]
    assert not asks[-1]
    # What follows the root is always wanted.
    assert Gardener(SMALL).grow(replace(seen, expanded=())) == [0]


# --- alternating, for where cores are shared -----------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_goes_by_the_name_that_it_is_made_by(name: str) -> None:
    for bounds in (SHAPE, SMALL):
        assert make(name, bounds).name == name


def test_a_name_is_one_behaviour_whatever_the_bounds() -> None:
    for window in (None, 3):
        bounds = Bounds(window=window)
        continuous, by_turns = make("gardener", bounds), make("alternating", bounds)
        assert isinstance(continuous, Gardener)
        assert isinstance(by_turns, Alternating)
        assert continuous.window(costs(stages=4)) == (window or 5)
        assert by_turns.window(costs(stages=4)) == 1
        # One segment is under way: the one drafts and sends meanwhile, the other does neither.
        under_way = view(BRANCHES, sent={0}, flying=1, costs=costs(stages=4))
        assert continuous.choose(under_way) == LIKELIEST[1:]
        assert continuous.grow(under_way) != []
        assert by_turns.choose(under_way) == by_turns.grow(under_way) == []


def test_alternating_is_the_default_where_cores_are_shared_unless_a_user_sets_a_window() -> None:
    assert default_policy(crowded=True) == "alternating"
    assert default_policy(crowded=False) == "gardener"
    assert default_policy(crowded=True, window=3) == "gardener"
    assert default_policy(crowded=False, window=3) == "gardener"


def test_a_comparison_is_of_the_baselines_and_of_what_would_run() -> None:
    baselines = ("plain", "serial", "chunked", "pipedec", "flowspec")
    assert default_comparison(["gardener", "gardener"]) == MAIN == (*baselines, "gardener")
    assert default_comparison(["alternating"]) == (*baselines, "alternating")
    both = ("gardener", "alternating")
    assert default_comparison(both) == default_comparison(both[::-1]) == (*baselines, *both)


def test_where_cores_are_shared_drafting_and_computing_wait_for_each_other() -> None:
    policy = Alternating(SHAPE)
    for instant in (False, True):
        assert policy.grow(view(BRANCHES, sent={0}, flying=1, instant=instant)) == []
        assert policy.grow(view(BRANCHES, instant=instant)) == LIKELIEST
    assert policy.choose(view(BRANCHES, sent={0}, flying=1)) == []
    assert policy.choose(view(BRANCHES, growing=[0])) == []
    assert policy.choose(view(BRANCHES, growing=[0], overdue=True)) == LIKELIEST
    assert policy.choose(view(BRANCHES, sent=range(7))) == []


def test_a_segment_by_turns_keeps_to_the_bounds_of_the_user() -> None:
    policy = Alternating(SMALL)
    assert policy.grow(view(BRANCHES)) == [0, 1]
    assert policy.choose(view(BRANCHES)) == [0, 1, 3]


def test_without_guesses_it_sends_the_root_alone_and_drafts_nothing() -> None:
    policy = Alternating(SHAPE)
    assert policy.choose(view(BRANCHES, speculating=False)) == [0]
    assert policy.grow(view(BRANCHES, speculating=False)) == []


def test_rows_and_calls_have_to_bring_more_where_rounds_have_brought_much() -> None:
    # The first row takes 10 ms, each further one 4. The price of a row is 0.4 tokens where 100 a
    # second were brought, and 0.8 where it were 200; a call of 3 ms costs 0.3 tokens, or 0.6.
    ring = costs(((1, 0.010), (64, 0.262)), draft=0.003)
    easy, hard = Alternating(SHAPE, _tokens=200.0, _seconds=1.0), Alternating(SHAPE)
    hard = replace(hard, _tokens=100.0, _seconds=1.0)
    assert hard.choose(view(BRANCHES, costs=ring)) == [0, 1, 3, 5]
    assert easy.choose(view(BRANCHES, costs=ring)) == [0]
    chain = tree((0, 0.9), (1, 0.9))  # of 0.7 tokens after each node, 0.3 are left, 0.23, 0.17
    hard = replace(hard, _tokens=100.0, _seconds=1.0)
    easy = replace(easy, _tokens=200.0, _seconds=1.0)
    assert hard.grow(view(chain, costs=ring)) == [0, 1, 2]
    assert easy.grow(view(chain, costs=ring)) == []


def test_drafting_has_its_place_in_the_price_of_time() -> None:
    wide = tree(*((0, 0.3 * 0.95**rank) for rank in range(30)))
    ring = costs(((1, 0.010), (64, 0.262)), draft=0.010)
    drafted, idle = (Alternating(SHAPE, _tokens=4.0, _seconds=0.1) for _ in range(2))
    assert drafted.grow(view(wide, costs=ring)) != []
    # The call took time, too, in which nothing came: a row need not bring as much as without it.
    assert len(drafted.choose(view(wide, costs=ring))) > len(idle.choose(view(wide, costs=ring)))


# --- sizes that stay steady ----------------------------------------------------------------------

DEAR = ((1, 0.050), (2, 0.058), (4, 0.085), (8, 0.140), (16, 0.239), (64, 0.850))
"""4-bit weights on a processor: a row is cheap, and each further one costs."""


def fan(*chances: float) -> Tree:
    """A root and its children."""
    return tree(*((0, chance) for chance in chances))


@pytest.mark.parametrize(
    ("curve", "chances", "rows"),
    [
        (FLAT, (0.5, 0.1, 0.01), 3),  # where rows are free, all
        (STEEP, (0.9, 0.45, 0.3), 1),  # each after the first would have to be sure
        (DEAR, (0.45, 0.2, 0.1, 0.1), 2),  # it lengthens a tick by 0.15, the third one by 0.21
        (DEAR, (0.45, 0.1, 0.1, 0.1), 1),
        (DEAR, (0.9, 0.8, 0.7, 0.6, 0.1), 4),
    ],
)
def test_a_row_is_worth_its_share_of_a_tick(
    curve: tuple[tuple[int, float], ...], chances: tuple[float, ...], rows: int
) -> None:
    steady = SteadySize()
    steady.offered(chances)
    assert steady.rows(Curve(curve)) == rows
    assert SteadySize().rows(Curve(curve)) == 0


def test_the_steady_size_follows_from_the_mean_of_what_could_be_sent() -> None:
    steady, curve = SteadySize(), Curve(DEAR)
    for _ in range(10):
        steady.offered((0.9, 0.8, 0.7, 0.6))
    assert steady.rows(curve) == 4
    steady.offered((0.3,))  # one of them alone changes little
    assert steady.rows(curve) == 4
    for _ in range(60):
        steady.offered((0.4, 0.1))
    assert steady.rows(curve) == 1


def test_a_segment_larger_than_others_has_to_be_worth_what_it_costs_at_every_stage() -> None:
    """Six rows with these chances have the most tokens per tick. After segments of one row they
    come late by six rows' time at each of four stages; after some that were as large they do not.
    With one stage, nothing waits for anything."""
    costly = costs(DEAR, stages=4)
    rich = fan(*[0.3] * 6)

    def chosen(before: Tree, ring: Costs) -> int:
        policy = Gardener(SHAPE)
        for _ in range(20):
            policy.choose(view(before, sent={0}, costs=ring))
        return len(policy.choose(view(rich, sent={0}, costs=ring)))

    assert chosen(fan(0.1), costly) < chosen(rich, costly)
    assert chosen(fan(0.1), costs(DEAR)) == chosen(rich, costs(DEAR)) == 6
    assert chosen(fan(0.1), costs(FLAT, stages=4)) == 6
