"""Gumbel noise: the same on every machine, in any order, and with the right law."""

import math

import numpy as np
import pytest

from gardener.model.noise import KEPT, Noise

EULER = 0.5772156649015329


GOLDEN = {
    (0, 0): [4.455549716949463, 1.2856264114379883, 2.135908842086792, 0.1850479245185852],
    (7, 1000): [1.4708592891693115, 1.5255810022354126, -0.8519205451011658, -0.025176621973514557],
    (2**63 - 1, 3): [-0.8967105150222778, 0.21157582104206085, 0.73103928565979, 1.234898328781128],
}
"""Seed and position, and the noise of the first tokens there."""


@pytest.mark.parametrize(("seed", "position"), GOLDEN)
def test_the_noise_of_a_token_is_the_same_everywhere(seed: int, position: int) -> None:
    """Whoever computes other noise writes other texts: to be changed with the protocol only."""
    assert Noise(seed).row(position, 4).tolist() == GOLDEN[seed, position]


def test_the_noise_of_a_token_does_not_depend_on_the_vocabulary() -> None:
    noise = Noise(5)
    short = noise.row(2, 61).copy()
    assert noise.row(2, 61 + 1000)[:61].tolist() == short.tolist()
    assert noise.row(2, 61).tolist() == short.tolist()
    assert Noise(5).row(2, 1).tolist() == short[:1].tolist()


def test_positions_may_be_asked_for_in_any_order_and_again() -> None:
    noise = Noise(5)
    forth = [noise.row(position, 8).tolist() for position in range(3 * KEPT)]
    back = [noise.row(position, 8).tolist() for position in reversed(range(3 * KEPT))]
    assert forth == back[::-1]
    assert len({tuple(row) for row in forth}) == 3 * KEPT
    assert len(noise._rows) == KEPT


def test_rows_that_are_forgotten_are_freed_and_come_again() -> None:
    noise = Noise(5)
    rows = [noise.row(position, 8).tolist() for position in range(6)]
    noise.forget(4)
    assert list(noise._rows) == [4, 5]
    assert [noise.row(position, 8).tolist() for position in range(6)] == rows


def test_seeds_and_positions_are_not_mixed_up() -> None:
    rows = [Noise(seed).row(position, 8) for seed in range(8) for position in range(8)]
    assert len({tuple(row.tolist()) for row in rows}) == 64


def test_the_noise_is_gumbel_noise_with_both_tails() -> None:
    row = Noise(1).row(0, 400_000).astype(np.float64)
    assert np.isfinite(row).all()
    assert row.mean() == pytest.approx(EULER, abs=0.01)
    assert row.var() == pytest.approx(math.pi**2 / 6, abs=0.02)
    for value in (-2.0, -1.0, 0.0, 1.0, 3.0, 6.0, 9.0):
        below = math.exp(-math.exp(-value))
        error = math.sqrt(below * (1 - below) / len(row))
        assert (row < value).mean() == pytest.approx(below, abs=5 * error)
