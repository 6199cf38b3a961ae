"""What a draft said of its nodes: calibrated guesses, and what becomes of them."""

from collections.abc import Container, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gardener.decoding.tree import Guess, Node
from gardener.draft.calibration import Calibration


class _Prediction(NamedTuple):
    """The guesses at what follows a node, their chances by the map alone, and their age."""

    tokens: list[int]
    chance: NDArray[np.float64]
    age: int


class Predictions:
    """The last guesses after each node of one text, from which its calibration learns."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._made: dict[int, _Prediction] = {}  # by node

    def make(
        self, nodes: Sequence[Node], tokens: Tensor, log_q: Tensor, ages: Sequence[int]
    ) -> list[tuple[Guess, ...]]:
        """Guesses after these nodes with probabilities that mean what they say, from tokens and
        natural logs of the network's own probabilities, both [nodes, guesses]. `ages`: how many
        rows of each node's path were computed on the network's own outputs."""
        named = tokens.tolist()
        ranks = np.arange(len(named[0]), dtype=float)[None]
        age = np.array(ages)[:, None]
        chances = self._calibration.probabilities(log_q.double().cpu().numpy(), ranks, age)
        given = self._calibration.corrected(chances, *np.broadcast_arrays(ranks, age))
        given /= np.maximum(given.sum(-1, keepdims=True), 1.0)
        for node, guesses, chance, old in zip(nodes, named, chances, ages, strict=True):
            self._made[node.id] = _Prediction(guesses, chance, old)
        return [
            tuple(map(Guess, guesses, odds))
            for guesses, odds in zip(named, given.tolist(), strict=True)
        ]

    def learn(self, node: Node) -> None:
        """This node was accepted: one of the guesses at its place came true, or none did."""
        made = self._made.pop(node.parent, None)
        if made is not None:
            hit = made.tokens.index(node.token) if node.token in made.tokens else None
            self._calibration.observe(made.chance, made.age, hit)

    def keep(self, alive: Container[int]) -> None:
        """Forget what was said of nodes that are not among these."""
        self._made = {node: made for node, made in self._made.items() if node in alive}
