"""Probabilities that mean what they say: the map, its correction, and how well it does."""

from pathlib import Path

import numpy as np
import pytest

from gardener.draft.calibration import (
    IDENTITY,
    MEMORY,
    WEIGHT,
    Calibration,
    Floats,
    expected_error,
)
from gardener.errors import UserError

KNOWN = np.array([-0.5, 0.1, 0.6, -0.3, -0.4, 0.05, 0.1, 0.2])


def situations(count: int, seed: int = 1) -> tuple[Floats, Floats, Floats]:
    """Log probability, rank and depth of random guesses."""
    source = np.random.default_rng(seed)
    log_q = np.log(source.uniform(0.001, 0.999, count))
    rank = source.integers(0, 8, count).astype(float)
    return log_q, rank, source.integers(0, 8, count).astype(float)


def fitted(weights: Floats = KNOWN, count: int = 200_000) -> Calibration:
    """From guesses that come true as this map says."""
    log_q, rank, depth = situations(count)
    true = Calibration(weights).probabilities(log_q, rank, depth)
    hit = np.random.default_rng(2).uniform(size=count) < true
    return Calibration.fit(log_q, rank, depth, hit.astype(float))


def chance_of(calibration: Calibration, chance: float, rank: int, depth: int) -> float:
    where = np.array([rank]), np.array([depth])
    return float(calibration.corrected(np.array([chance]), *where)[0])


# --- the map ---------------------------------------------------------------------------------


def test_a_new_map_leaves_probabilities_as_they_are() -> None:
    log_q, rank, depth = situations(1000)
    assert np.allclose(Calibration().probabilities(log_q, rank, depth), np.exp(log_q))


def test_a_map_in_a_file_means_the_same_for_ever() -> None:
    log_q, rank, depth = np.array([-0.7, -2.0]), np.array([2.0, 0.0]), np.array([3.0, 1.0])
    place, deep = np.log(1 + rank), np.log(1 + depth)
    odds = np.log(np.exp(log_q) / (1 - np.exp(log_q)))
    terms = [1.0, log_q, odds, place, deep, odds * deep, odds * place, place * deep]
    score = sum(weight * term for weight, term in zip(KNOWN, terms, strict=True))
    told = Calibration(KNOWN).probabilities(log_q, rank, depth)
    assert told == pytest.approx(1 / (1 + np.exp(-score)))


def test_fitting_recovers_the_map_that_made_the_guesses() -> None:
    log_q, rank, depth = situations(2000, seed=3)
    found = fitted().probabilities(log_q, rank, depth)
    true = Calibration(KNOWN).probabilities(log_q, rank, depth)
    assert np.abs(found - true).max() < 0.02
    assert np.abs(np.exp(log_q) - true).max() > 0.2  # there was something to find


def test_fitting_finds_a_place_where_the_truth_is_reached() -> None:
    log_q, rank, depth = situations(50_000, seed=4)
    true = Calibration(KNOWN).probabilities(log_q, rank, depth)
    hit = (np.random.default_rng(5).uniform(size=len(true)) < true).astype(float)
    told = fitted().probabilities(log_q, rank, depth)
    assert expected_error(told, hit) < 0.01
    assert expected_error(np.exp(log_q), hit) > 0.1


def test_fitting_survives_guesses_that_all_came_true_or_all_failed() -> None:
    log_q, rank, depth = situations(500)
    for hit in (np.zeros(500), np.ones(500)):
        fit = Calibration.fit(log_q, rank, depth, hit)
        assert np.isfinite(fit.weights).all()
        assert np.abs(fit.probabilities(log_q, rank, depth) - hit).max() < 0.1


@pytest.mark.parametrize("fit", [False, True])
def test_what_the_network_finds_likelier_is_likelier(fit: bool) -> None:
    calibration = fitted() if fit else Calibration()
    log_q = np.log(np.linspace(0.0005, 0.9999, 400))
    for rank in range(4):
        for depth in range(6):
            told = calibration.probabilities(log_q, np.array(rank), np.array(depth))
            assert (np.diff(told) > 0).all()
            assert told[0] > 0
            assert told[-1] < 1


def test_a_fitted_map_tells_ranks_and_depths_apart() -> None:
    calibration, log_q = fitted(), np.log(np.full(3, 0.5))
    by_depth = calibration.probabilities(log_q, np.zeros(3), np.array([0.0, 1.0, 4.0]))
    by_rank = calibration.probabilities(log_q, np.array([0.0, 1.0, 4.0]), np.zeros(3))
    assert (np.diff(by_depth) < 0).all()
    assert (np.diff(by_rank) < 0).all()


def test_sure_and_impossible_guesses_have_probabilities() -> None:
    log_q = np.array([0.0, -1e-9, -100.0])
    told = fitted().probabilities(log_q, np.zeros(3), np.zeros(3))
    assert np.isfinite(told).all()
    assert told[0] == pytest.approx(told[1])
    assert 0 <= told[2] < 0.01


def test_ranks_and_depths_are_spread_over_rows() -> None:
    log_q = np.log(np.array([[0.5, 0.3], [0.6, 0.1], [0.9, 0.05]]))
    ranks, depths = np.arange(2.0)[None], np.array([0.0, 1.0, 5.0])[:, None]
    told = Calibration(KNOWN).probabilities(log_q, ranks, depths)
    assert told.shape == (3, 2)
    for row in range(3):
        for rank in range(2):
            alone = Calibration(KNOWN).probabilities(
                log_q[row, rank : rank + 1], np.array([float(rank)]), depths[row]
            )
            assert told[row, rank] == pytest.approx(alone[0])


# --- how far off -----------------------------------------------------------------------------


def test_guesses_that_come_true_as_often_as_said_have_no_error() -> None:
    chance = np.repeat([0.25, 0.75], 60)
    hit = np.concatenate((np.tile([0, 0, 0, 1], 15), np.tile([1, 1, 0, 1], 15))).astype(float)
    assert expected_error(chance, hit) == pytest.approx(0.0)
    assert expected_error(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.0


def test_the_error_is_the_distance_to_what_came_true() -> None:
    hit = np.tile([0.0, 1.0], 60)
    assert expected_error(np.full(120, 0.8), hit) == pytest.approx(0.3)
    assert expected_error(np.full(120, 0.1), hit) == pytest.approx(0.4)


def test_errors_up_and_down_do_not_cancel() -> None:
    chance = np.repeat([0.25, 0.75], 60)
    hit = np.tile([0.0, 1.0], 60)  # half of each: 0.25 too low, and 0.25 too high
    assert chance.mean() == hit.mean()
    assert expected_error(chance, hit, bins=10) == pytest.approx(0.25)
    assert expected_error(chance, hit, bins=1) == pytest.approx(0.0)


def test_the_order_of_guesses_does_not_matter_and_bins_weigh_by_guesses() -> None:
    chance, hit = np.array([0.9, 0.1, 0.2]), np.array([1.0, 0.0, 1.0])
    assert expected_error(chance, hit) == pytest.approx((0.1 + 0.1 + 0.8) / 3)
    assert expected_error(chance[::-1], hit[::-1]) == expected_error(chance, hit)
    # Two bins: 0.1 and 0.2 in one, 0.9 in the other.
    assert expected_error(chance, hit, bins=2) == pytest.approx((2 * 0.35 + 0.1) / 3)


def test_no_guesses_are_no_error() -> None:
    assert expected_error(np.zeros(0), np.zeros(0)) == 0.0


# --- the correction --------------------------------------------------------------------------


def test_before_anything_is_observed_nothing_is_corrected() -> None:
    for rank in range(6):
        for depth in range(6):
            assert chance_of(Calibration(), 0.4, rank, depth) == 0.4


def test_one_observation_counts_against_the_weight_of_the_map() -> None:
    calibration = Calibration()
    calibration.observe(np.array([0.5]), 0, 0)
    assert chance_of(calibration, 0.4, 0, 0) == pytest.approx(0.4 * (WEIGHT + 1) / (WEIGHT + 0.5))
    calibration.observe(np.array([0.5]), 0, None)
    hits, expected = MEMORY, 0.5 * MEMORY + 0.5
    assert chance_of(calibration, 0.4, 0, 0) == pytest.approx(
        0.4 * (WEIGHT + hits) / (WEIGHT + expected)
    )


def test_guesses_that_come_true_more_often_than_said_rise_and_others_sink() -> None:
    up, down = Calibration(), Calibration()
    before = 0.4
    for _ in range(100):
        up.observe(np.array([0.4, 0.2]), 0, 0)
        down.observe(np.array([0.4, 0.2]), 0, None)
        assert chance_of(up, 0.4, 0, 0) > before
        before = chance_of(up, 0.4, 0, 0)
    assert before > 0.75
    assert chance_of(down, 0.4, 0, 0) < 0.15
    assert chance_of(up, 0.4, 1, 0) < 0.4  # the second guess never came true
    # The longer this goes on, the nearer they come to what happens.
    for _ in range(2000):
        down.observe(np.array([0.4, 0.2]), 0, 1)
    expected = 0.2 * (WEIGHT + 200) / (WEIGHT + 40)
    assert chance_of(down, 0.2, 1, 0) == pytest.approx(expected, rel=0.01)


def test_guesses_that_come_true_as_often_as_said_stay() -> None:
    calibration = Calibration()
    for number in range(400):
        calibration.observe(np.array([0.25]), 0, 0 if number % 4 == 0 else None)
    assert chance_of(calibration, 0.25, 0, 0) == pytest.approx(0.25, rel=0.03)


def test_what_is_long_ago_is_forgotten() -> None:
    calibration = Calibration()
    for _ in range(300):
        calibration.observe(np.array([0.5]), 0, None)
    for _ in range(1500):
        calibration.observe(np.array([0.5]), 0, 0)
    fresh = Calibration()
    for _ in range(1500):
        fresh.observe(np.array([0.5]), 0, 0)
    assert chance_of(calibration, 0.5, 0, 0) == pytest.approx(chance_of(fresh, 0.5, 0, 0), rel=0.01)


RANK_CELLS = [[0], [1], [2], [3, 4, 7]]
DEPTH_CELLS = [[0], [1], [2, 3], [4, 5, 40]]


@pytest.mark.parametrize("rank_cell", range(4))
@pytest.mark.parametrize("depth_cell", range(4))
def test_only_the_same_rank_and_depth_are_corrected(rank_cell: int, depth_cell: int) -> None:
    calibration = Calibration()
    rank, depth = RANK_CELLS[rank_cell][0], DEPTH_CELLS[depth_cell][0]
    chance = np.zeros(rank + 1)  # what is said of the ranks before is kept, and right
    chance[rank] = 0.1
    for _ in range(50):
        calibration.observe(chance, depth, rank)
    for r, ranks in enumerate(RANK_CELLS):
        for d, depths in enumerate(DEPTH_CELLS):
            told = [chance_of(calibration, 0.1, a, b) for a in ranks for b in depths]
            if (r, d) == (rank_cell, depth_cell):
                assert min(told) == max(told) > 0.2
            else:
                assert told == [0.1] * len(told)


def test_corrected_probabilities_stay_below_one() -> None:
    calibration = Calibration()
    for _ in range(500):
        calibration.observe(np.array([0.01]), 0, 0)
    assert chance_of(calibration, 0.9, 0, 0) == 0.999


def test_correcting_leaves_the_map_alone() -> None:
    calibration = Calibration()
    log_q = np.log(np.array([0.3]))
    for _ in range(50):
        calibration.observe(np.array([0.3]), 0, 0)
    told = calibration.probabilities(log_q, np.zeros(1), np.zeros(1))
    assert told == pytest.approx(0.3)


# --- files -----------------------------------------------------------------------------------


def test_a_map_that_was_written_is_read_as_it_was(tmp_path: Path) -> None:
    calibration = fitted(count=2000)
    for _ in range(20):
        calibration.observe(np.array([0.3]), 0, 0)
    calibration.write(tmp_path / "calibration.json")
    again = Calibration.read(tmp_path / "calibration.json")
    assert again.weights.tolist() == calibration.weights.tolist()
    assert again.weights.tolist() != list(IDENTITY)
    assert chance_of(again, 0.3, 0, 0) == 0.3  # what was observed belongs to the text at hand


def test_without_a_file_probabilities_stay_as_they_are(tmp_path: Path) -> None:
    calibration = Calibration.read(tmp_path / "calibration.json")
    log_q, rank, depth = situations(100)
    assert np.allclose(calibration.probabilities(log_q, rank, depth), np.exp(log_q))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"weights": null}',
        '{"weights": 1.0}',
        '{"weights": []}',
        '{"weights": [1, 2, 3]}',
        '{"weights": [[0, 0, 1, 0, 0, 0, 0, 0]]}',
        '{"weights": [0, 0, 1, 0, 0, 0, 0, 0, 0]}',
        '{"weights": [0, 0, 1, 0, [0], 0, 0, 0]}',
        '{"weights": [0, 0, 1, 0, "x", 0, 0, 0]}',
        '{"weights": [0, 0, 1, 0, null, 0, 0, 0]}',
        '{"weights": [0, 0, 1, 0, NaN, 0, 0, 0]}',
        '{"weights": [0, 0, 1, 0, Infinity, 0, 0, 0]}',
        '{"weights": [0, 0, 1, 0, 1e999, 0, 0, 0]}',
        '{"weights": [0, 0, 1, 0, 1' + "0" * 400 + ", 0, 0, 0]}",
        '{"weights": [0, 0, 1, 0, 1' + "0" * 5000 + ", 0, 0, 0]}",
        '{"weights": [0, 0, 1, 0, 1e300, 0, 0, 0]}',
        '{"weights": [0, 0, 1, 0, true, 0, 0, 0]}',
        '{"weights": 0, "more": ' + "[" * 100_000,
        '{"more": ' + "[" * 100_000,
    ],
)
def test_a_broken_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"calibration\.json .*: take it away"):
        Calibration.read(path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(b"\xff\xfe\x00weights")
    with pytest.raises(UserError, match="cannot be read"):
        Calibration.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        Calibration.read(path)
