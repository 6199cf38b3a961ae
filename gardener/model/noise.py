"""Gumbel noise that depends on seed, position and token alone.

It is drawn with Philox 4x64 (Salmon et al. 2011, as numpy has it), a generator that computes its
n-th number from a key and n. The key is seed and position, n is the token. So every machine and
every process draws the same, in any order, and only what is looked at.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]

BLOCK = 4
"""Numbers that the generator makes at once."""

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
            row = _gumbel(self._philox(position, 0).random_raw(tokens))
        self._rows[position] = row
        if len(self._rows) > KEPT:
            del self._rows[next(iter(self._rows))]
        return row[:tokens]

    def forget(self, before: int) -> None:
        """Free the rows before this position: the text has come so far. Whoever asks for one of
        them nevertheless gets the same again."""
        for position in [each for each in self._rows if each < before]:
            del self._rows[position]

    def of(self, position: int, tokens: Sequence[int]) -> Floats32:
        """The noise of a few tokens there."""
        row = self._rows.get(position)
        if row is not None and len(row) > max(tokens, default=0):
            return row[np.asarray(tokens, np.int64)]
        return _gumbel(np.array([self._raw(position, token) for token in tokens], np.uint64))

    def _raw(self, position: int, token: int) -> int:
        block, place = divmod(token, BLOCK)
        raw: int = self._philox(position, block).random_raw(place + 1)[place]
        return raw

    def _philox(self, position: int, block: int) -> np.random.Philox:
        key = np.array([self._seed, position], np.uint64)
        return np.random.Philox(key=key, counter=block)


def _gumbel(raw: NDArray[np.uint64]) -> Floats32:
    """Standard Gumbel noise from uniform 64-bit integers.

    The largest noise comes from the smallest numbers, where floats are densest: with `log1p` no
    part of that tail is cut or rounded away.
    """
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    noise: Floats32 = (-np.log(-np.log1p(-uniform))).astype(np.float32)
    return noise
