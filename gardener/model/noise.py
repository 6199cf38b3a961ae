"""Gumbel noise that depends on seed, position and token alone.

It is drawn with Philox 4x64 (Salmon et al. 2011, as numpy has it), a generator that computes its
n-th number from a key and n. The key is seed and position, n is the token. So every machine and
every process draws the same, in any order, and only what is looked at.
"""

import numpy as np
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]

KEPT = 32
"""Positions whose rows are kept: those of a tree, which are asked for again and again."""


class Noise:
    """The noise of one request."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rows: dict[int, Floats32] = {}  # by position, the one that was used last at the end

    def row(self, position: int, tokens: int) -> Floats32:
        """The noise of tokens 0..tokens-1 where the text has this position, counted from 0. Not to
        be written to."""
        row = self._rows.pop(position, None)
        if row is None or len(row) < tokens:
            key = np.array([self._seed, position], np.uint64)
            row = _gumbel(np.random.Philox(key=key).random_raw(tokens))
        self._rows[position] = row
        if len(self._rows) > KEPT:
            del self._rows[next(iter(self._rows))]
        return row[:tokens]

    def forget(self, before: int) -> None:
        """Free the rows before this position: the text has come so far. Whoever asks for one of
        them nevertheless gets the same again."""
        for position in [each for each in self._rows if each < before]:
            del self._rows[position]


def _gumbel(raw: NDArray[np.uint64]) -> Floats32:
    """Standard Gumbel noise from uniform 64-bit integers.

    The largest noise comes from the smallest numbers, where floats are densest: with `log1p` no
    part of that tail is cut or rounded away.
    """
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    noise: Floats32 = (-np.log(-np.log1p(-uniform))).astype(np.float32)
    return noise
