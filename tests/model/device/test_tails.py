"""Tables of tails against what each row's ancestors say, one by one."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_trees import TokenTree

from gardener.errors import LocalError
from gardener.model.device.frame import COLUMNS, CUT, FIRST_OF_TAIL, POSITION, SLOT
from gardener.model.device.sizes import TAIL, cut_of
from gardener.model.device.tails import cuts, deep, order, table
from gardener.model.placement import Placement

DUMP = 4095


def test_cuts_are_those_of_the_sizes() -> None:
    positions = np.arange(700)
    assert cuts(positions).tolist() == [cut_of(position) for position in range(700)]
    assert (positions - cuts(positions)).max() == TAIL - 1


def check(tree: TokenTree, placement: Placement, rows: list[int]) -> int:
    """All that is said of these rows; how many are deep."""
    made = table(placement, len(rows) + 3, DUMP)
    assert made.shape == (len(rows) + 3, COLUMNS)
    assert made.dtype == np.int64
    for i, row in enumerate(rows):
        slots = [tree.slots[above] for above in tree.paths[row]]
        position, cut = len(slots) - 1, cut_of(len(slots) - 1)
        tail = slots[cut:]
        assert made[i, [POSITION, SLOT, CUT]].tolist() == [position, slots[-1], cut]
        assert made[i, FIRST_OF_TAIL:].tolist() == tail + [slots[-1]] * (TAIL - len(tail))
        assert deep(placement)[i] == (slots[:cut] != list(range(cut)))
        assert order(placement.take([i])).tolist() == slots[:cut]
    assert (made[len(rows) :, [POSITION, SLOT, CUT]] == [0, DUMP, 0]).all()
    assert (made[len(rows) :, FIRST_OF_TAIL:] == DUMP).all()
    return int(deep(placement).sum())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    prompt=st.sampled_from([1, 2, 31, 62, 95, 96, 130]),
    newest=st.integers(1, 8),
)
def test_tables_of_trees_that_grow_die_and_move(seed: int, prompt: int, newest: int) -> None:
    tree = TokenTree(random.Random(seed), prompt)
    while tree.read < prompt:
        check(tree, *tree.prompts(50))
    for _ in range(12):
        segments = [tree.random.randint(1, 9) for _ in range(tree.random.randint(1, 3))]
        check(tree, *tree.grow(*segments, newest=newest))
        if tree.random.random() < 0.3:
            check(tree, *tree.again(4))
        if tree.random.random() < 0.6:
            tree.advance()


@pytest.mark.parametrize("prompt", [3, 50])
def test_rows_of_a_tree_that_is_deeper_than_a_tail(prompt: int) -> None:
    tree = TokenTree(random.Random(1), prompt)
    check(tree, *tree.prompts(prompt))
    check(tree, *tree.grow(1, 1))  # two branches, one of which stands elsewhere
    deeper = sum(check(tree, *tree.grow(7, newest=1)) for _ in range(16))
    assert 0 < deeper < 16 * 7
    tree.advance()
    check(tree, *tree.grow(3))


def test_a_frame_that_is_too_small_is_named() -> None:
    tree = TokenTree(random.Random(1), 5)
    placement, _ = tree.prompts(5)
    assert len(table(placement, 5, DUMP)) == 5
    with pytest.raises(LocalError, match="5 rows in a frame of 4"):
        table(placement, 4, DUMP)
