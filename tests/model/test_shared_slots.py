"""Rows that one request takes from another: slots and masks, keys and values."""

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gardener.errors import LocalError, RemoteError
from gardener.model.architecture import Architecture
from gardener.model.kv_cache import KVCache, slot_bytes
from gardener.model.kv_slots import SlotTable


def grown(table: SlotTable, prompt: int) -> None:
    """Prompt, a tree of two branches, and three accepted tokens, the last to be moved."""
    ids = list(range(prompt))
    table.place(ids, [i - 1 for i in ids], ids)
    one = prompt - 1
    tree = [prompt, prompt + 1, prompt + 2]
    table.place(tree, [one, one, prompt + 1], [prompt, prompt, prompt + 1])
    table.advance([one], prompt + 1)
    table.place([prompt + 3, prompt + 4], [prompt + 2, prompt + 2], [prompt + 2, prompt + 2])
    table.place([prompt + 5], [prompt + 4], [prompt + 3])
    table.advance([prompt + 1, prompt + 2], prompt + 4)


def test_certain_rows_are_told_in_the_order_of_the_text() -> None:
    table = SlotTable(4, 100)
    grown(table, 4)
    assert table.certain == 7
    assert table.first(7).tolist() == [0, 1, 2, 3, 4, 5, 21]
    assert table.first(5).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(RemoteError, match="8 rows of a text of which 7 are certain"):
        table.first(8)


def test_of_a_text_that_is_kept_the_rows_stand_in_order() -> None:
    table = SlotTable(4, 100)
    grown(table, 4)
    assert (table.certain, table.free, table.high) == (7, 0, 8)
    assert table.keep_certain().tolist() == [0, 1, 2, 3, 4, 5, 21]
    assert (table.certain, table.high, table.free) == (7, 7, 0)
    assert table.first(6).tolist() == [0, 1, 2, 3, 4, 5]
    assert table.living([0, 5, 6, 7, 8, 9]) == [True, True, True, False, True, False]


@pytest.mark.parametrize("shared", [1, 5, 300])
def test_a_text_goes_on_from_shared_rows(shared: int) -> None:
    prompt = shared + 3
    table, whole = SlotTable(prompt, 400, shared=shared), SlotTable(prompt, 400)
    ids = list(range(shared))
    whole.place(ids, [i - 1 for i in ids], ids)
    assert (table.certain, table.high, table.free) == (shared, shared, 0)
    ids = list(range(shared, prompt))
    tree = [prompt, prompt + 1], [prompt - 1, prompt], [prompt, prompt + 1]
    for rows in ((ids, [i - 1 for i in ids], ids), tree):
        one, other = table.place(*rows), whole.place(*rows)
        assert one.slots.tolist() == other.slots.tolist()
        assert one.mask is not None
        assert other.mask is not None
        assert np.array_equal(one.mask, other.mask)
        assert one.slot_positions.tolist() == other.slot_positions.tolist()


def test_shared_rows_do_not_come_again() -> None:
    table = SlotTable(6, 100, shared=4)
    with pytest.raises(RemoteError, match="row 3 comes twice or out of turn"):
        table.place([3], [2], [3])


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Architecture:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder)
    return Architecture.read(folder)


def cache(shape: Architecture, most: int | None = None) -> KVCache:
    return KVCache(2, shape, torch.float32, torch.device("cpu"), most)


def test_entries_are_copied_and_kept_in_the_order_that_is_given(shape: Architecture) -> None:
    source, slots = cache(shape), np.array([7, 0, 255])
    entries = [torch.randn(3, 2, 8) for _ in range(2)]
    for layer, rows in enumerate(entries):
        source.write(layer, torch.from_numpy(slots), rows, -rows)
    copied = cache(shape, 64)
    copied.copy(source, slots)
    before = copied.nbytes
    copied.reserve(64)
    assert copied.nbytes == before == 64 * slot_bytes(2, shape, torch.float32)
    kept = source.kept(slots)
    assert kept.nbytes == 3 * slot_bytes(2, shape, torch.float32)
    for made in (copied, kept):
        for layer, rows in enumerate(entries):
            keys, values = (tensor[:, :3] for tensor in made.read(layer))
            assert torch.equal(keys, rows.transpose(0, 1))
            assert torch.equal(values, -rows.transpose(0, 1))
    again = cache(shape)
    again.copy(kept, np.array([2, 1]))
    assert torch.equal(again.read(1)[0][:, :2], entries[1][[2, 1]].transpose(0, 1))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.lists(st.integers(1, 3500), max_size=8))
def test_a_cache_never_has_more_than_it_may(
    shape: Architecture, most: int, asked: list[int]
) -> None:
    made, slot = cache(shape, most), slot_bytes(2, shape, torch.float32)
    for slots in asked:
        if slots > most:
            with pytest.raises(LocalError, match=f"{slots} slots of a cache that may have {most}"):
                made.reserve(slots)
        else:
            made.reserve(slots)
            assert made.nbytes >= slots * slot
        assert made.nbytes <= most * slot


def test_what_is_kept_of_nothing_is_nothing(shape: Architecture) -> None:
    assert cache(shape).kept(np.zeros(0, np.int64)).nbytes == 0
