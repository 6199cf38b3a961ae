"""What the passes of a drafter take, by their rows."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from torch import Tensor

from gardener.draft import timing
from gardener.draft.calibration import Calibration
from gardener.draft.incremental import Incremental
from gardener.draft.network import DraftRows
from gardener.draft.small_model import SmallModel

MANY = 10**6
"""Tokens of which none is drawn twice."""


def test_each_number_of_rows_is_timed_several_times_and_the_median_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes that take as many seconds as they have rows, but for a few that take much longer."""
    tiny.make("llama", tmp_path, max_position_embeddings=2048)
    network = SmallModel(tmp_path, tmp_path, dtype="float32", device="cpu")
    passes: list[int] = []
    run = network.run

    def counted(rows: DraftRows) -> Tensor:
        passes.append(len(rows.embedded))
        return run(rows)

    def timed(work: Callable[[], object]) -> float:
        before = len(passes)
        work()
        return sum(passes[before:]) + 1000.0 * (before % 5 == 0)

    monkeypatch.setattr(network, "run", counted)
    monkeypatch.setattr(timing, "timed", timed)
    curve = timing.draft_curve([Incremental(network, Calibration())], 32, MANY)
    assert curve is not None
    assert curve.points == tuple((rows, float(rows)) for rows in timing.ROWS)
