"""What a stage finds out about its own speed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import tiny
import torch

from gardener.decoding.costs import LONG, SHORT, SIZES
from gardener.model.checkpoint.slices import Slice
from gardener.model.kv_slots import SlotTable
from gardener.model.mixture import Router, Routes
from gardener.protocol.messages import Open
from gardener.stages.executor import Executor
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage
from gardener.stages.measure import LONG_SIZES, REQUEST, TURNS, Measured, chain, measure
from gardener.stages.start import card_of


class Paced:
    """A stage whose passes take a second, and another one for each row and 100 tokens of text."""

    def __init__(self, room: int = 4096, seconds: float = 1.0) -> None:
        self.slice = Slice(0, 1, 2)
        self.architecture = SimpleNamespace(context=room, vocab=10)
        self.now, self.threads, self.loads_kernels = 0.0, 2, False
        self.open_requests: set[int] = set()
        self.rows: list[int] = []
        self._seconds = seconds

    def open(self, message: Open) -> None:
        self.open_requests.add(message.request)

    def close(self, request: int) -> None:
        self.open_requests.discard(request)

    def filled(self, rows: int) -> int:
        return rows

    def weigh(self, placed: PlacedSegment, now: Callable[[], float]) -> None:
        """There is nothing to weigh."""

    def timed(
        self, batch: Sequence[PlacedSegment], now: Callable[[], float]
    ) -> tuple[float, float]:
        assert batch[0].request in self.open_requests
        rows, high, began = batch[0].rows, batch[0].placement.high, now()
        self.rows.append(rows)
        self.now += self._seconds * (1 + rows + (high - rows) // 100)
        whole = now() - began
        return 0.75 * whole, 0.25 * whole


def measured(stage: Paced, budget: float) -> Measured:
    return measure(cast(Executor, stage), budget, lambda: stage.now)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[Executor]:
    """A tiny model in two parts."""
    folder: Path = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder)
    slices = (Slice(0, 2, 4), Slice(2, 4, 4))
    return [load_stage(folder, held, dtype="bfloat16") for held in slices]


def test_a_stage_knows_what_each_size_takes() -> None:
    stage = Paced()
    result = measured(stage, 100_000.0)
    assert result.short == tuple((rows, 1.0 + rows) for rows in SIZES)
    assert result.long == tuple((rows, 11.0 + rows) for rows in LONG_SIZES)
    assert result.context == LONG
    told = "a pass of 1 row takes 2e+03 ms, of 64 rows 6.5e+04 ms"
    assert str(result) == f"{told}, with 2 threads"
    stage.threads = 1
    assert str(measured(stage, 100_000.0)).endswith(", with 1 thread")
    stage.threads = 0  # a GPU has
    assert str(measured(stage, 100_000.0)) == told


def test_a_stage_knows_what_one_row_takes_in_a_layer_and_in_the_head() -> None:
    """At the short context, though more layers and the head are in one pass."""
    stage = Paced()
    result = measured(stage, 100_000.0)
    assert (result.layer, result.head) == (1.5, 0.0)  # three quarters of 2 s; no head is here
    stage.slice = Slice(0, 3, 3)
    result = measured(stage, 0.001)
    assert (result.layer, result.head) == (0.5, 0.5)


def test_real_stages_tell_apart_blocks_and_head(stages: list[Executor]) -> None:
    first, last = (measure(stage, budget=0.5) for stage in stages)
    assert first.head == 0.0 < first.layer < first.short[0][1]
    assert 0.0 < last.head < last.short[0][1] - last.layer
    card = card_of(stages[1], 2, last)
    assert (card.layer, card.head) == (round(last.layer * 1e9), round(last.head * 1e9))


def test_it_says_where_rows_gain_nothing_by_company() -> None:
    steep = Measured(((1, 0.01), (8, 0.065), (64, 0.07)), (), 0, 64, 1.0)
    assert "8 rows take 6.5 times as long as 1, so that guesses hardly pay" in str(steep)
    flat = Measured(((1, 0.01), (8, 0.035), (64, 0.60)), (), 0, 64, 1.0)
    assert "hardly pay" not in str(flat)
    assert "hardly pay" not in str(Measured(((1, 0.01),), (), 0, 64, 1.0))


def test_a_slow_stage_leaves_out_what_the_budget_has_no_room_for() -> None:
    stage = Paced()
    result = measured(stage, 60.0)
    assert [rows for rows, _ in result.short] == [1, 2, 4, 8, 16]
    assert stage.now == result.seconds < 1.5 * 60.0
    assert "more rows are estimated from this, to measure them takes over 2 s" in str(result)


def test_even_the_slowest_stage_tells_one_size_of_each() -> None:
    result = measured(Paced(), 0.001)
    assert [rows for rows, _ in result.short] == [rows for rows, _ in result.long] == [1]


def test_slow_passes_are_timed_once_and_others_in_turns() -> None:
    slow, quick = Paced(), Paced()
    measured(slow, 60.0)
    measured(quick, 100_000.0)
    assert (slow.rows.count(2), quick.rows.count(2)) == (1, TURNS)
    assert quick.rows[1 + len(SIZES) :][: len(SIZES)] == list(SIZES)


def test_what_disturbs_some_passes_does_not_count() -> None:
    class Disturbed(Paced):
        def timed(
            self, batch: Sequence[PlacedSegment], now: Callable[[], float]
        ) -> tuple[float, float]:
            blocks, end = super().timed(batch, now)
            self.now += 50.0 * (len(self.rows) % 3)
            return blocks + 50.0 * (len(self.rows) % 3), end

    result = measured(Disturbed(), 100_000.0)
    assert result.short == tuple((rows, 1.0 + rows) for rows in SIZES)
    assert result.layer == 1.5


def test_nothing_is_measured_beyond_the_models_context() -> None:
    short = measured(Paced(room=60), 1e6)
    assert [rows for rows, _ in short.short] == [1, 2, 4, 8, 16, 32]
    assert (short.context, [rows for rows, _ in short.long]) == (30, [1, 16])
    tiny_room = measured(Paced(room=2), 1e6)
    assert ([rows for rows, _ in tiny_room.short], tiny_room.long, tiny_room.context) == (
        [1],
        (),
        0,
    )


def test_the_cache_is_freed_even_when_it_fails() -> None:
    class Broken(Paced):
        def timed(
            self, batch: Sequence[PlacedSegment], now: Callable[[], float]
        ) -> tuple[float, float]:
            raise MemoryError

    stage = Broken()
    with pytest.raises(MemoryError):
        measured(stage, 1.0)
    assert not stage.open_requests


def test_real_stages_are_measured_and_leave_nothing(stages: list[Executor]) -> None:
    for stage in stages:
        result = measure(stage, budget=1000.0)
        assert result.threads == torch.get_num_threads()
        assert [rows for rows, _ in result.short] == list(SIZES)
        assert [rows for rows, _ in result.long] == list(LONG_SIZES)
        assert all(seconds > 0 for _, seconds in (*result.short, *result.long))
        assert not stage._caches


def test_a_measured_chain_stands_as_a_segment_would(stages: list[Executor]) -> None:
    table = SlotTable(SHORT, 256)
    prompt = range(SHORT)
    table.place(prompt, [row - 1 for row in prompt], prompt)
    rows = range(SHORT, SHORT + 4)
    expected = table.place(rows, [row - 1 for row in rows], rows)
    placed = chain(stages[1], SHORT, 4, 0)
    assert placed.request == REQUEST
    assert placed.hidden is not None
    assert placed.hidden.shape == (4, 32)
    for name in ("slots", "positions", "slot_positions", "mask"):
        assert np.array_equal(getattr(placed.placement, name), getattr(expected, name)), name
    assert chain(stages[0], SHORT, 1, 0).placement.mask is None


def test_measuring_leaves_the_random_numbers_alone(stages: list[Executor]) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    measure(stages[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_are_random_and_others_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So those of a mixture bring experts of their own, at the first stage as at a later one."""
    tiny.make("mixtral", tmp_path, num_local_experts=20, num_experts_per_tok=2)
    reached: dict[int, list[set[int]]] = {}
    route = Router.__call__

    def noted(self: Router, x: torch.Tensor) -> Routes:
        routes = route(self, x)
        reached.setdefault(len(x), []).append({*routes.experts.flatten().tolist()})
        return routes

    monkeypatch.setattr(Router, "__call__", noted)
    for held in (Slice(0, 1, 4), Slice(1, 2, 4)):
        reached.clear()
        measure(load_stage(tmp_path, held))
        assert len(reached[1]) > TURNS
        assert len(set.union(*reached[1])) > 4
        assert all(len(each) > 8 for each in reached[16])
