"""The token tree: grafting, advancing, dying."""

import math
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gardener.decoding.tree import LEAST, Guess, Tree, pool
from gardener.protocol.life import descendants


def build() -> Tree:
    """Root 3, two branches: 3-4-6 and 3-5-7, and 8 below 4."""
    tree = Tree(3, 100)
    for parent, token in ((3, 10), (3, 11), (4, 12), (5, 13), (4, 14)):
        tree.graft(parent, token, -1.0)
    return tree


def test_ids_count_up_from_the_root() -> None:
    assert [node.id for node in build()] == [3, 4, 5, 6, 7, 8]


def test_graft_never_makes_a_second_node_for_one_parent_and_token() -> None:
    tree = build()
    assert tree.graft(3, 10, -5.0).id == 4
    assert len(tree) == 6


def test_graft_below_a_node_that_is_gone_is_an_error() -> None:
    with pytest.raises(KeyError):
        build().graft(99, 1, 0.0)


def test_advance_to_a_child_keeps_its_branch_and_names_the_dead() -> None:
    tree = build()
    assert sorted(tree.advance(10)) == [5, 7]
    assert tree.root == 4
    assert [node.id for node in tree] == [4, 6, 8]


def test_a_miss_plants_the_token_and_kills_everything_else() -> None:
    tree = build()
    assert sorted(tree.advance(99)) == [4, 5, 6, 7, 8]
    assert tree.root == 9
    assert tree[9].parent == 3
    assert len(tree) == 1


def test_ids_are_never_used_twice() -> None:
    tree = build()
    tree.advance(99)
    assert tree.graft(tree.root, 10, 0.0).id == 10


def test_a_planted_root_keeps_the_scores_below_it_comparable() -> None:
    tree = build()
    tree.advance(99)
    assert tree[tree.root].score == 0.0


def test_lineage_and_depth() -> None:
    tree = build()
    assert [node.id for node in tree.lineage(6)] == [3, 4, 6]
    assert (tree.depth(3), tree.depth(6)) == (0, 2)


def test_child() -> None:
    tree = build()
    found = tree.child(4, 14)
    assert found is not None
    assert found.id == 8
    assert tree.child(4, 15) is None


def test_descendants_needs_parents_before_children_and_leaves_out_the_root() -> None:
    rows = [(4, 3), (5, 3), (6, 4), (7, 9), (8, 6)]
    assert descendants(3, rows) == {4, 5, 6, 8}
    assert descendants(4, rows) == {6, 8}


@pytest.mark.parametrize("seed", range(20))
def test_advance_leaves_just_what_hangs_below_the_new_root(seed: int) -> None:
    chance = random.Random(seed)
    tree = Tree(0, 0)
    for _ in range(30):
        tree.graft(chance.choice(list(tree)).id, chance.randrange(3), 0.0)
    rows = [(node.id, node.parent) for node in tree]
    token = chance.randrange(4)
    heir = tree.child(0, token)
    dead = tree.advance(token)
    alive = descendants(heir.id, rows) if heir else set()
    assert {node.id for node in tree} == alive | {tree.root}
    assert {*dead} == {i for i, _ in rows} - alive - {0, tree.root}


def pooled(siblings: Sequence[Mapping[int, float]]) -> list[float]:
    """What the tree makes of these probabilities, given for each sibling by drafter."""
    tree = Tree(0, 0)
    for token in range(len(siblings)):
        tree.graft(0, token, math.log(LEAST))
    for source in range(3):
        said = [Guess(token, by[source]) for token, by in enumerate(siblings) if source in by]
        tree.propose(0, source, said)
    return [math.exp(node.score) for node in tree if node.id]


def test_drafters_share_out_what_those_before_them_left_open() -> None:
    said = [{0: 0.6, 1: 0.5}, {1: 0.4}, {0: 0.2}, {}]
    left = 1 - 0.6 * 0.8  # the first one counts as far as it is sure
    expected = [0.6 * 0.6 + left * 0.5, left * 0.4, 0.6 * 0.2, LEAST]
    assert pooled(said) == pytest.approx(expected)
    assert pool([[0.6, 0.0, 0.2, 0.0], [0.5, 0.4, 0.0, 0.0]]) == pytest.approx(expected)
    assert pooled([{1: 0.3}, {1: 0.2}]) == pytest.approx([0.3, 0.2])  # the first said nothing
    assert pooled([{0: 0.3}, {0: 0.2}]) == pytest.approx([0.3, 0.2])  # the second is yet to speak
    assert pooled([{0: 1.0}, {1: 0.9}]) == pytest.approx([1.0, LEAST])  # the first is sure


def test_what_a_drafter_takes_back_counts_no_more() -> None:
    tree = Tree(0, 0)
    tree.propose(0, 0, [Guess(5, 0.5)])
    tree.propose(0, 1, [Guess(5, 0.2), Guess(6, 0.4)])
    assert tree.propose(0, 1, []) == 0
    assert [math.exp(node.score) for node in tree] == pytest.approx([1.0, 0.5, LEAST])
    assert [tree.source(node) for node in (1, 2)] == [{0}, set()]
    assert tree.propose(0, 0, []) == 0
    assert [math.exp(node.score) for node in tree] == pytest.approx([1.0, LEAST, LEAST])
    assert tree.propose(0, 0, []) == 0


@settings(max_examples=50)
@given(
    st.lists(
        st.dictionaries(st.integers(0, 2), st.floats(1e-6, 1.0), max_size=3), min_size=1, max_size=8
    )
)
def test_siblings_are_never_more_likely_than_one_together(said: list[dict[int, float]]) -> None:
    chances = pooled(said)
    assert sum(chances) <= 1 + LEAST * len(said) + 1e-9
    assert all(chance >= LEAST * (1 - 1e-9) for chance in chances)


def test_no_node_is_likelier_than_its_parent_however_scores_are_rounded() -> None:
    """Where a guess is sure, both have the same score; the order of scores is that of sending."""
    chance = random.Random(1)
    for _ in range(200):
        tree = Tree(0, 9)
        parent = 0
        for _ in range(6):
            tree.propose(parent, 0, [Guess(1, chance.random())])
            parent = next(node.id for node in tree if node.parent == parent)
        for _ in range(6):  # the drafter changes its mind, which shifts all that is below
            tree.propose(chance.randrange(6), 0, [Guess(1, chance.choice([1.0, chance.random()]))])
            for node in tree:
                assert node.id == tree.root or node.score <= tree[node.parent].score


def test_the_likeliest_nodes_come_in_the_same_order_as_if_they_were_sorted_anew() -> None:
    chance = random.Random(2)
    for _ in range(50):
        tree = Tree(0, 9)
        for _ in range(60):
            match chance.randrange(8):
                case 0:
                    tree.advance(chance.randrange(4))
                case 1:
                    tree.graft(chance.choice(list(tree)).id, chance.randrange(4), -3.0)
                case _:
                    parent, source = chance.choice(list(tree)).id, chance.randrange(2)
                    shares = chance.choices([0.0, 0.1, 0.25, 0.5, 1.0], k=chance.randrange(4))
                    tree.propose(parent, source, list(map(Guess, range(4), shares)))
            lowest = tree[tree.root].score + math.log(chance.choice([0.5, 0.1, 1e-3, 1e-9]))
            found = [node for node in tree if node.score >= lowest]
            found.sort(key=lambda node: -node.score)  # stable: those with lower ids first
            assert list(tree.likeliest(lowest)) == found
            for node in tree:
                assert tree.depth(node.id) == len(tree.lineage(node.id)) - 1 <= tree.height
