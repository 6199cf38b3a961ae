"""Guesses are counted by how far ahead they were when they left."""

import random
from collections.abc import Sequence

from fakes import VOCABULARY, decode, plain, target

from gardener.decoding.depths import Depths
from gardener.decoding.limits import Limits
from gardener.decoding.policy import Bounds, make
from gardener.decoding.tree import Guess, Tree


def test_a_guess_counts_at_the_depth_at_which_it_left() -> None:
    tree, depths = Tree(0, 10), Depths()
    a, b = tree.graft(0, 1, -0.1), tree.graft(0, 2, -1.0)
    below = tree.graft(a.id, 3, -0.2)
    assert depths.leave([0, a.id, b.id, below.id], tree.depth) == [0, 1, 1, 2]
    assert depths.pairs() == ((2, 0), (1, 0))
    depths.walk(a, tree.advance(1))
    assert depths.pairs() == ((2, 1), (1, 0))
    later = tree.graft(below.id, 4, -0.3)
    assert depths.leave([later.id], tree.depth) == [2]  # the root has moved
    depths.walk(below, tree.advance(3))
    depths.walk(None, tree.advance(9))  # a miss: `later` died
    assert depths.pairs() == ((2, 1), (2, 1))


def test_right_guesses_are_all_accepted_and_wrong_ones_never() -> None:
    limits = Limits(40, 99)

    def run(step: int) -> list[tuple[int, int]]:
        def drafts(text: Sequence[int]) -> tuple[Guess, ...]:
            return (Guess((target(text) + step) % VOCABULARY, 0.9),)

        ring = decode([1, 2], make("gardener", Bounds()), limits, drafts, random.Random(1))
        assert ring.emitted == plain([1, 2], limits)[0]
        return list(ring.speculation.depths.pairs())

    right, wrong = run(0), run(1)
    assert right
    assert all(sent == accepted for sent, accepted in right)
    assert sum(sent for sent, _ in wrong) > 0
    assert sum(accepted for _, accepted in wrong) == 0
