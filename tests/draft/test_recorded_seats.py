"""Seats of texts on a device: how much memory they hold, and what texts leave there for others."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import recorders
import test_eagle
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_recorded import Story, pair

from gardener.decoding.tree import Tree
from gardener.draft.calibration import Calibration
from gardener.draft.device import seats, steps
from gardener.draft.device.rows import RecordedRows
from gardener.draft.incremental import IncrementalDraft
from gardener.draft.network import DraftNetwork
from gardener.model.device.graphs import Graphs
from gardener.model.tensors import pack


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, and probabilities as the network gives them."""
    monkeypatch.setattr(Calibration, "corrected", lambda self, chance, *where: chance)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def head(tmp_path: Path) -> DraftNetwork:
    return test_eagle.build("induction", tmp_path)[0]


def test_what_is_no_number_goes_with_its_text(head: DraftNetwork) -> None:
    both, _ = pair(head)
    draft = both[0].open([1, 2, 3, 4])
    draft.settle((), [pack(torch.full((3, 32), torch.nan))])
    draft.expand([Tree(3, 4).lineage(3)])
    del draft
    gc.collect()
    Story.begun(both, 6, seed=11).go_on(2)


def test_few_seats_are_kept_and_recordings_go_with_the_others(
    head: DraftNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "MOST_FREE", 1)
    graphs = Graphs(recorders.Replaying())
    pool = seats.Seats(head, graphs)
    three = [pool.take(10) for _ in range(3)]
    for seat in three:
        graphs.run((seat.number, "work"), lambda: None)
        pool.give_back(seat)
    again = pool.take(10)
    assert again is three[2]
    assert [(seat.number, "work") in graphs for seat in three] == [False, False, True]
    pool.reserve(again, 5000)
    assert again.slots == 8192
    assert len(graphs) == 0


def test_no_free_seat_is_beside_one_that_is_made_or_grown(head: DraftNetwork) -> None:
    graphs = Graphs(recorders.Replaying())
    pool = seats.Seats(head, graphs)
    small, other = pool.take(10), pool.take(10)
    graphs.run((small.number, "work"), lambda: None)
    pool.give_back(small)
    large = pool.take(3000)
    assert large.slots == 4096
    assert len(graphs) == 0, "the small one is gone"
    pool.give_back(large)
    assert pool.reserve(other, 1024) is False
    assert pool.take(3000) is large
    pool.give_back(large)
    assert pool.reserve(other, 1025)
    assert pool.take(3000) is not large


def test_a_short_text_does_not_keep_a_long_ones_memory(head: DraftNetwork) -> None:
    pool = seats.Seats(head)
    large = pool.take(seats.WASTE * seats.FIRST_SLOTS + 1)
    pool.give_back(large)
    assert pool.take(10).slots == seats.FIRST_SLOTS
    medium = pool.take(seats.WASTE * seats.FIRST_SLOTS)
    assert medium is not large
    pool.give_back(medium)
    assert pool.take(10) is medium


@given(st.lists(st.tuples(st.sampled_from(["take", "give", "grow"]), st.integers(1, 9000))))
def test_seats_hold_no_more_than_texts_ever_needed(turns: list[tuple[str, int]]) -> None:
    """Times what may be wasted."""
    made: list[Place] = []
    pool = seats.Seats(cast(Any, made))
    taken: list[tuple[Any, int]] = []
    most = 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(seats, "Seat", Place)
        for turn, number in turns:
            if turn == "take":
                taken.append((pool.take(number), number))
            elif taken:
                seat, needed = taken.pop(number % len(taken))
                if turn == "grow":
                    pool.reserve(seat, needed + number)
                    taken.append((seat, needed + number))
                else:
                    pool.give_back(seat)
                del seat
            gc.collect(0)
            assert all(seat.slots >= needed for seat, needed in taken)
            most = max(most, sum(seats._whole(needed) for _, needed in taken))
            there = [seat for seat, _ in taken] + pool._free + list(pool._returned)
            assert sum(seat.slots for seat in there) <= seats.WASTE * most


class Place:
    """Stands for a seat."""

    def __init__(self, number: int, network: object, slots: int) -> None:
        self.number, self.slots = number, slots

    def grow(self, slots: int) -> None:
        self.slots = slots

    def wipe(self) -> None: ...


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_features_that_are_no_numbers_leave_none_behind(wrong: float, head: DraftNetwork) -> None:
    """Nor do those of another text get into rows that fill up."""
    drafter = pair(head)[0][0]
    features = torch.ones(3, 32)
    features[1:] = wrong
    for prompt, rows in (([1, 2, 3, 4], features), ([1, 2], torch.ones(1, 32))):
        draft = drafter.open(prompt)
        draft.settle((), [pack(rows)])
        root = len(prompt) - 1
        draft.expand([Tree(root, prompt[-1]).lineage(root)])
        assert isinstance(draft, IncrementalDraft)
        assert isinstance(draft._rows, RecordedRows)
        seat = draft._rows._seat
        entries = torch.stack(seat.cache.read(0))
        assert entries.isfinite().all()
        assert entries.abs().max() < 1e4
        assert seat.outputs.isfinite().all()
    recorded = drafter._recorded
    assert recorded is not None
    [parcel] = [each for size, each in recorded._parcels.items() if size.true]
    assert parcel.here["features"][0].all()
    assert not parcel.here["features"][1:].any()


def test_no_row_of_a_text_sees_what_filled_up(
    head: DraftNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where it looks at its whole seat either."""
    monkeypatch.setattr(seats, "FIRST_SLOTS", 16)
    monkeypatch.setattr("gardener.draft.device.rows.AHEAD", 0)
    monkeypatch.setattr(steps, "LOOK", 16)
    both, _ = pair(head)
    story = Story.begun(both, 8, seed=3)
    (draft, _) = story.drafts
    assert isinstance(draft, IncrementalDraft)
    assert isinstance(draft._rows, RecordedRows)
    for _ in range(12):
        seat = draft._rows._seat
        for entries in seat.cache.read(0):
            with torch.inference_mode():
                entries[:, seat.dump] = torch.nan
        story.go_on(1)
        assert not seat.outputs[seat.nothing].any()
