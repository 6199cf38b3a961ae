"""Probabilities that mean what they say: of the guesses given 30 %, three in ten come true.

A network is too sure of its guesses, the more so the longer it has drafted without a true feature.
So the chance of a guess is a logistic map of its log probability, its rank and the tokens drafted
since the last true feature, fitted on dialogues that the head was not trained on. Texts differ; how
often guesses come true in the one at hand is counted on the way, and corrects the map: for every
accepted token the truth is known for all guesses at its place, sent or not.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from gardener.errors import UserError, reason
from gardener.runtime.files import write_text

Floats: TypeAlias = NDArray[np.float64]

WEIGHT = 12.0
"""How many guesses that should come true the map is worth against what is counted on the way."""

MEMORY = 0.995
"""A guess counts this much less with each newer one in its cell: texts change character."""

_RANKS, _DEPTHS = 4, 4  # cells of the correction


def _terms(log_q: Floats, rank: Floats, depth: Floats) -> Floats:
    """What the map is linear in, [n, 8]."""
    deep, place = np.log1p(depth), np.log1p(rank)
    odds = log_q - np.log(-np.expm1(np.minimum(log_q, -1e-6)))
    return np.stack(
        [np.ones_like(log_q), log_q, odds, place, deep, odds * deep, odds * place, place * deep], -1
    )


IDENTITY = (0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Leaves probabilities as they are."""


class _Stored(msgspec.Struct, frozen=True):
    """The file. Weights beyond a million are no fit of anything, and their sums may overflow."""

    weights: Annotated[
        list[Annotated[float, Meta(ge=-1e6, le=1e6)]],
        Meta(min_length=len(IDENTITY), max_length=len(IDENTITY)),
    ]


def _chance(terms: Floats, weights: Floats) -> Floats:
    chance: Floats = 1.0 / (1.0 + np.exp(-np.clip(terms @ weights, -30.0, 30.0)))
    return chance


@dataclass
class Calibration:
    """The map, and its correction for the text at hand."""

    weights: Floats = field(default_factory=lambda: np.array(IDENTITY))
    _hits: Floats = field(default_factory=lambda: np.zeros((_RANKS, _DEPTHS)))
    _expected: Floats = field(default_factory=lambda: np.zeros((_RANKS, _DEPTHS)))

    @classmethod
    def fit(cls, log_q: Floats, rank: Floats, depth: Floats, hit: Floats) -> "Calibration":
        """From guesses and what became of them, arrays [n] each, by Newton's method."""
        terms = _terms(log_q, rank, depth)
        weights = np.array(IDENTITY)
        ridge = 1e-3 * np.eye(len(weights))
        for _ in range(25):
            chance = _chance(terms, weights)
            slope = terms.T @ (hit - chance) - ridge @ weights
            bend = (terms * (chance * (1 - chance))[:, None]).T @ terms + ridge
            step = np.linalg.solve(bend, slope)
            weights = weights + step
            if np.abs(step).max() < 1e-6:
                break
        return cls(weights)

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """What `write` wrote; leaves probabilities as they are if there is no such file."""
        if not path.exists():
            return cls()
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
        except (OSError, msgspec.DecodeError, RecursionError) as error:
            raise UserError(f"{path} cannot be read ({reason(error)}): take it away") from error
        return cls(np.array(stored.weights))

    def write(self, path: Path) -> None:
        """The map alone. Raises UserError."""
        write_text(path, json.dumps({"weights": self.weights.tolist()}) + "\n")

    def probabilities(self, log_q: Floats, rank: Floats, depth: Floats) -> Floats:
        """By the map alone, in the shape of `log_q`; `rank` and `depth` are broadcast to it."""
        rank, depth = np.broadcast_to(rank, log_q.shape), np.broadcast_to(depth, log_q.shape)
        return _chance(_terms(log_q, rank, depth), self.weights)

    def corrected(self, chance: Floats, rank: Floats, depth: Floats) -> Floats:
        """For the text at hand: what the map says, times how far it was off lately."""
        factor = (self._hits + WEIGHT) / (self._expected + WEIGHT)
        return np.minimum(chance * factor[_cell(rank, depth)], 0.999)

    def observe(self, chance: Floats, depth: int, hit: int | None) -> None:
        """What became of the guesses at one place: `chance` [ranks] by the map alone; `hit` is the
        rank of the one that came true, None if none did."""
        rank = np.arange(len(chance))
        cells = _cell(rank, np.full(len(chance), depth))
        happened = (rank == hit).astype(float)
        np.multiply.at(self._hits, cells, MEMORY)
        np.multiply.at(self._expected, cells, MEMORY)
        np.add.at(self._hits, cells, happened)
        np.add.at(self._expected, cells, chance)


def _cell(rank: NDArray[np.generic], depth: NDArray[np.generic]) -> tuple[NDArray[np.int64], ...]:
    """Ranks 0, 1, 2, 3 and more; depths 0, 1, 2 to 3, 4 and more."""
    steps = np.array([1, 2, 4])
    return (
        np.minimum(rank, _RANKS - 1).astype(np.int64),
        np.searchsorted(steps, depth, side="right").astype(np.int64),
    )


def expected_error(chance: Floats, hit: Floats, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017) over bins with equally many guesses: the mean
    distance between the mean chance of a bin and the share of it that came true."""
    order = np.argsort(chance, kind="stable")
    parts: Sequence[NDArray[np.int64]] = [p for p in np.array_split(order, bins) if len(p)]
    gaps = [abs(chance[part].mean() - hit[part].mean()) * len(part) for part in parts]
    return float(sum(gaps) / max(len(chance), 1))
