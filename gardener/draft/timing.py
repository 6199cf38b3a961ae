"""How long the passes of a drafter take, by their rows: timed after a text of random tokens."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from gardener.decoding.curves import Curve
from gardener.decoding.tree import Node, Tree
from gardener.draft.block_drafter import BlockDrafter
from gardener.draft.drafter import Drafter
from gardener.model.tensors import dtype_of, pack

TEXT = 256
"""Tokens of the text."""

ACCEPTED = 4
"""Tokens that are accepted at once."""

ROWS = (1, 2, 4, 8, 16, 32)
"""Rows that are timed."""

TURNS, WARM = 5, 2
"""How often each is timed, and how often before that."""


class DraftedText:
    """A drafter with a text and a tree; tokens are random, for what they are costs nothing."""

    def __init__(self, drafter: Drafter, width: int, dtype: str, vocab: int) -> None:
        """`width`: of a feature, [rows, width]; `dtype` is its dtype, and tokens are less than
        `vocab`."""
        self._drafter, self._width, self._dtype = drafter, width, dtype_of(dtype)
        self._random, self._vocab = random.Random(1), vocab
        self._draft = drafter.open([self._token() for _ in range(TEXT)])
        self._draft.settle((), self._features(TEXT - 1))
        self._tree = Tree(TEXT - 1, 0)
        self._draft.expand([[self._root]])

    @property
    def _root(self) -> Node:
        return self._tree[self._tree.root]

    def _token(self) -> int:
        return self._random.randrange(self._vocab)

    def _features(self, rows: int) -> list[Any]:
        taps = len(self._drafter.taps)
        return [pack(torch.randn(rows, self._width).to(self._dtype)) for _ in range(taps)]

    def expansion(self, count: int) -> float:
        """Seconds to expand this number of new children of the root."""
        nodes = [self._tree.graft(self._tree.root, self._token(), 0.0) for _ in range(count)]
        paths = [[self._root, node] for node in nodes]
        return timed(lambda: self._draft.expand(paths))

    def re_anchoring(self) -> float:
        """Seconds to take in `ACCEPTED` tokens with their features, and to guess what follows."""
        nodes = []
        for _ in range(ACCEPTED):
            self._tree.advance(self._token())
            nodes.append(self._root)
        self._draft.settle(nodes, self._features(ACCEPTED))
        return timed(lambda: self._draft.expand([[self._root]]))


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes. Of work that ends with guesses on this machine, whatever a device has
    to do for them is part of it."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def draft_curve(drafters: Sequence[Drafter], width: int, vocab: int) -> Curve | None:
    """Seconds of a pass by rows, of the drafter that takes time; None if there is none. Takes about
    a hundred passes."""
    slow = next((each for each in drafters if not each.instant), None)
    if slow is None:
        return None
    text = DraftedText(slow, width, "float32", vocab)
    if isinstance(slow, BlockDrafter):  # a pass for each new root, whatever it is asked about
        _warm(text.re_anchoring)
        return Curve(((1, _median(text.re_anchoring)),))
    works = {rows: partial(_expansion, text, rows) for rows in ROWS}
    for work in works.values():
        _warm(work)  # all of them, before any is timed: the first passes load and record kernels
    return Curve(tuple((rows, _median(work)) for rows, work in works.items()))


def _expansion(text: DraftedText, rows: int) -> float:
    seconds = text.expansion(rows)
    text.re_anchoring()  # so that the tree does not grow
    return seconds


def _warm(once: Callable[[], float]) -> None:
    for _ in range(WARM):
        once()


def _median(once: Callable[[], float]) -> float:
    return statistics.median(once() for _ in range(TURNS))
