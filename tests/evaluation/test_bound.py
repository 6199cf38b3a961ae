"""What the policies know that bound all others (`benchmarks/bound.py`)."""

import math
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from benchmarks.bound import Heard, true_chain
from gardener.decoding.policy import View
from gardener.decoding.tree import Tree
from gardener.holder.holder import Holder
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.recording import Recording

PROMPT, TEXT = (7, 7), (5, 6, 8, 9)


def grown() -> Tree:
    """Root 1; 2 (.6) with 4 (.9) below it; 3 (.3) with 5 (.5) below it."""
    tree = Tree(1, PROMPT[-1])
    for parent, token, probability in ((1, 4, 0.6), (1, 5, 0.3), (2, 6, 0.9), (3, 6, 0.5)):
        tree.graft(parent, token, tree[parent].score + math.log(probability))
    return tree


def view(*sent: int) -> View:
    return View(grown(), sent, (), flying=1, growing=(), reach=4)


def chain(seen: View) -> list[int]:
    """Ids of the true nodes, by a library that has this text."""
    features = torch.zeros(len(PROMPT + TEXT), 1)
    library = Library([Recording(PROMPT + TEXT, len(PROMPT), features)], taps=(1,), eos=frozenset())
    decoding = SimpleNamespace(prompt=PROMPT, counts=SimpleNamespace(emitted=0))
    holder = cast(Holder, SimpleNamespace(session=SimpleNamespace(speculation=decoding)))
    return [node.id for node in true_chain(seen, holder, library)]


def heard(seen: View, truth: list[int]) -> Heard:
    return Heard.of(seen, [seen.tree[node] for node in truth])


def test_the_true_chain_is_as_long_as_the_text_has_been_guessed() -> None:
    assert chain(view()) == [1, 3, 5]


def test_below_a_row_that_was_heard_to_be_right_everything_else_is_dead() -> None:
    known = heard(view(1, 2, 3), [1, 3, 5])
    assert known.alive == {3, 5}
    assert [node.id for node in known.unsent(9, 0.1)] == [5]
    assert known.chance(known.tree[5]) == pytest.approx(0.5)


def test_a_row_that_was_heard_to_be_wrong_makes_its_siblings_likelier() -> None:
    known = heard(view(1, 2), [1, 3, 5])
    assert known.alive == {1, 3, 5}
    assert known.chance(known.tree[3]) == pytest.approx(0.3 / 0.4)
    assert known.chance(known.tree[5]) == pytest.approx(0.3 / 0.4 * 0.5)


def test_before_the_root_is_sent_nothing_is_known() -> None:
    known = heard(view(), [1, 3, 5])
    assert known.alive == {1, 2, 3, 4, 5}
    assert [known.chance(node) for node in known.tree] == pytest.approx([1, 0.6, 0.3, 0.54, 0.15])
