"""The slot table against a naive model of it: a set of rows, each with its list of ancestors."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gardener.errors import LocalError, RemoteError
from gardener.model.kv_slots import SlotTable
from gardener.model.placement import Moves, Placement, merge


class Naive:
    """What the table must do, kept by id and without slots of its own."""

    def __init__(self, prompt: int) -> None:
        self.parent = {i: i - 1 for i in range(prompt)}
        self.root = prompt - 1
        self.prompt = prompt

    def lineage(self, node: int) -> list[int]:
        path = [node]
        while self.parent[path[-1]] != -1:
            path.append(self.parent[path[-1]])
        return path[::-1]

    def lives(self, node: int) -> bool:
        return node in self.lineage(self.root) or self.root in self.lineage(node)


def _prompt(table: SlotTable, length: int, chunk: int = 512) -> list[Placement]:
    parts = [range(a, min(a + chunk, length)) for a in range(0, length, chunk)]
    return [table.place(list(p), [i - 1 for i in p], list(p)) for p in parts]


def _place(table: SlotTable, naive: Naive, rows: Sequence[tuple[int, int]]) -> Placement:
    for row, parent in rows:
        naive.parent[row] = parent
    positions = [len(naive.lineage(row)) - 1 for row, _ in rows]
    return table.place([r for r, _ in rows], [p for _, p in rows], positions)


def _visible(placement: Placement, line: int) -> set[int]:
    return set(np.flatnonzero(placement.sees[line]).tolist())


def _pairs(moves: Moves | None) -> dict[int, int]:
    """Target: source."""
    if moves is None:
        return {}
    return dict(zip(moves.targets.tolist(), moves.sources.tolist(), strict=True))


def test_a_prompt_is_a_causal_chain_whatever_the_chunks() -> None:
    for chunk in (1, 3, 5, 64):
        table = SlotTable(prompt=11, context=100)
        parts = _prompt(table, 11, chunk)
        seen = [_visible(part, line) for part in parts for line in range(len(part.slots))]
        assert seen == [set(range(i + 1)) for i in range(11)]
        assert np.concatenate([part.slots for part in parts]).tolist() == list(range(11))


def test_plain_decoding_needs_no_mask() -> None:
    table = SlotTable(prompt=4, context=100)
    _prompt(table, 4)
    for root in range(4, 300):
        if root >= 100 + 1024:
            break
        table.advance([root - 1], root)
        placement = table.place([root], [root - 1], [root])
        assert placement.mask is None
        assert placement.high == root + 1
        assert placement.slots.tolist() == [root]


def test_siblings_do_not_see_each_other_and_what_is_accepted_is_moved_to_its_place() -> None:
    table = SlotTable(prompt=2, context=100)
    _prompt(table, 2)
    first = table.place([2, 3, 4, 5], [1, 1, 2, 3], [2, 2, 3, 3])
    assert first.slots.tolist() == [2, 18, 3, 19]  # some are left to what will stand there
    assert (first.base, first.high, first.moves) == (2, 20, None)
    assert [_visible(first, i) for i in range(4)] == [
        {0, 1, 2},
        {0, 1, 18},
        {0, 1, 2, 3},
        {0, 1, 18, 19},
    ]
    table.advance([], 3)  # 2 and 4 die, 3 finds its place
    assert table.living([0, 2, 3, 4, 5]) == [True, False, True, False, True]
    assert (table.certain, table.free, table.high) == (3, 16, 20)
    assert table.first(3).tolist() == [0, 1, 18]  # until the next pass
    second = table.place([6, 7, 8], [3, 5, 7], [3, 4, 5])
    assert _pairs(second.moves) == {2: 18}
    assert table.first(3).tolist() == [0, 1, 2]
    assert second.slots.tolist() == [3, 4, 5]
    assert [_visible(second, i) for i in range(3)] == [
        {0, 1, 2, 3},
        {0, 1, 2, 19, 4},
        {0, 1, 2, 19, 4, 5},
    ]


def test_what_stands_in_the_way_of_an_accepted_row_finds_another_slot() -> None:
    table = SlotTable(prompt=2, context=100)
    _prompt(table, 2)
    rows = [2, 3, 4, 5, 6], [1, 1, 2, 3, 5], [2, 2, 3, 3, 4]
    assert table.place(*rows).slots.tolist() == [2, 18, 3, 19, 4]
    table.advance([3], 5)  # 6, which is below, may stay
    assert _pairs(table.moves()) == {2: 18, 3: 19}
    table.place([7, 8], [5, 5], [4, 4])  # slots 20 and 21
    table.advance([], 8)
    table.place([], [], [])
    table.place([9, 10], [8, 8], [5, 5])
    table.advance([], 10)
    assert table.moves() is not None
    assert table.moves() is None
    assert table.first(6).tolist() == list(range(6))


def test_moves_of_several_advances_are_made_at_once() -> None:
    table = SlotTable(prompt=1, context=100)
    _prompt(table, 1)
    # A branch of three, in whose places another one stands first, of which one row is to live.
    table.place([1, 2, 3, 4, 5], [0, 0, 2, 3, 4], [1, 1, 2, 3, 4])
    assert [table.slot(row) for row in (1, 2, 3, 4, 5)] == [1, 17, 2, 3, 4]
    table.advance([], 2)
    table.place([6, 7], [3, 6], [3, 4])
    assert [table.slot(row) for row in (6, 7)] == [18, 19]
    table.advance([3], 6)
    table.advance([], 7)
    assert (table.certain, table.free, table.high) == (5, 0, 5)
    assert _pairs(table.moves()) == {3: 18, 4: 19}


def test_rows_that_are_computed_again_see_what_they_saw() -> None:
    table = SlotTable(prompt=2, context=100)
    _prompt(table, 2)
    table.place([2, 3, 4, 5], [1, 1, 2, 4], [2, 2, 3, 4])
    again = table.again([2, 4, 5])
    assert (again.slots.tolist(), again.positions.tolist()) == ([2, 3, 4], [2, 3, 4])
    assert [_visible(again, i) for i in range(3)] == [{0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}]
    assert again.slot_positions[[0, 1, 2, 16]].tolist() == [2, 3, 4, 2]
    assert [_visible(table.again([3]), 0), _visible(table.again([4]), 0)] == [
        {0, 1, 18},
        {0, 1, 2, 3},
    ]
    with pytest.raises(KeyError):
        table.again([1])  # certain
    with pytest.raises(KeyError):
        table.again([6])


def test_the_end_of_a_prompt_comes_with_guesses() -> None:
    table = SlotTable(prompt=3, context=100)
    _prompt(table, 2)
    placement = table.place([2, 3, 4, 5], [1, 2, 2, 3], [2, 3, 3, 4])
    assert [_visible(placement, i) for i in range(4)] == [
        {0, 1, 2},
        {0, 1, 2, 3},
        {0, 1, 2, 18},
        {0, 1, 2, 3, 4},
    ]
    assert (table.certain, table.free, table.high) == (3, 13, 19)
    table.advance([2], 3)
    assert table.living([2, 3, 4, 5]) == [True, True, False, True]


def test_an_advance_may_come_before_the_row_of_its_root() -> None:
    table = SlotTable(prompt=2, context=100)
    _prompt(table, 2)
    table.place([2, 3], [1, 1], [2, 2])
    table.advance([1, 2], 9)
    table.advance([1, 2], 9)  # again: nothing happens
    table.advance([], 2)  # an old one, late
    assert table.root == 9
    assert table.alive([8, 9, 10, 11, 12], [3, 2, 9, 10, 2]) == [1, 2, 3]
    placement = table.place([9, 10, 11], [2, 9, 10], [3, 4, 5])
    assert [len(_visible(placement, i)) for i in range(3)] == [4, 5, 6]
    assert table.certain == 4


def test_segments_of_one_pass_merge() -> None:
    table = SlotTable(prompt=2, context=100)
    _prompt(table, 2)
    parts = [
        table.place([2], [1], [2]),
        table.place([3, 4], [2, 1], [3, 2]),
        table.place([5], [3], [4]),
    ]
    whole = merge(parts)
    assert (whole.base, whole.high) == (2, 19)
    assert whole.positions.tolist() == [2, 3, 2, 4]
    seen = [_visible(whole, line) for line in range(4)]
    assert seen == [{0, 1, 2}, {0, 1, 2, 3}, {0, 1, 18}, {0, 1, 2, 3, 4}]
    assert merge(parts[:1]) is parts[0]
    with pytest.raises(LocalError, match="share a slot"):
        merge([parts[0], parts[0]])


def test_a_root_that_comes_in_the_same_pass_as_what_is_below_it() -> None:
    table = SlotTable(prompt=2, context=100)
    _prompt(table, 2)
    table.place([2, 3], [1, 1], [2, 2])
    table.advance([], 3)
    table.advance([3], 9)
    parts = [table.place([9], [3], [3]), table.place([10, 11], [9, 9], [4, 4])]
    assert [part.moves is None for part in parts] == [False, True]
    whole = merge(parts)
    assert (whole.base, _pairs(whole.moves)) == (3, {2: 18})
    assert whole.slot_positions[:2].tolist() == [3, 4]
    seen = [_visible(whole, line) for line in range(3)]
    assert seen == [{0, 1, 2, 3}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 20}]
    table.advance([], 11)
    with pytest.raises(LocalError, match="moved on between"):
        merge([*parts, table.place([12], [11], [5])])


def test_a_sliding_window_goes_by_position_not_by_slot() -> None:
    table = SlotTable(prompt=6, context=100)
    _prompt(table, 6)
    table.place([6, 7], [5, 5], [6, 6])
    placement = table.place([8], [7], [7])  # above it stands row 7, in slot 22
    assert np.flatnonzero(placement.within(3)[0]).tolist() == [5, 7, 22]
    forked = table.place([10, 11], [8, 6], [8, 7])  # a child of 8, and a sibling of it elsewhere
    seen = [np.flatnonzero(line).tolist() for line in forked.within(3)]
    assert seen == [[7, 8, 22], [5, 6, 23]]
    assert np.array_equal(placement.within(100), placement.sees)
    assert np.array_equal(placement.within(None), placement.sees)


def test_slots_run_out_with_an_error() -> None:
    table = SlotTable(prompt=3, context=3, spare=2)
    _prompt(table, 3)
    table.place([3, 4], [2, 2], [3, 3])
    with pytest.raises(RemoteError, match="5 slots"):
        table.place([5], [2], [3])


@pytest.mark.parametrize(
    ("ids", "parents", "positions", "what"),
    [
        ([7], [6], [6], "before its parent 6"),
        ([5, 5], [3, 3], [4, 4], "twice"),
        ([5], [3], [9], "claims position 9 but stands at 4"),
        ([2], [1], [2], "out of turn"),
        ([3], [2], [3], "out of turn"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(
    ids: list[int], parents: list[int], positions: list[int], what: str
) -> None:
    table = SlotTable(prompt=4, context=50)
    _prompt(table, 4)
    with pytest.raises(RemoteError, match=what):
        table.place(ids, parents, positions)
    assert (table.certain, table.free, table.high) == (4, 0, 4)


def test_an_advance_whose_root_does_not_follow_on_what_is_settled_is_refused() -> None:
    table = SlotTable(prompt=2, context=50)
    _prompt(table, 2)
    table.place([2, 3, 4], [1, 1, 3], [2, 2, 3])
    with pytest.raises(RemoteError, match="row 4 is settled"):
        table.advance([2], 4)  # which hangs below 3
    with pytest.raises(RemoteError, match="row 2 is settled"):
        table.advance([2], 2)
    table.advance([3], 4)
    assert table.certain == 4


def test_an_advance_that_skips_rows_is_refused() -> None:
    table = SlotTable(prompt=2, context=50)
    with pytest.raises(RemoteError, match="before row 1 has come"):
        table.advance([], 2)
    _prompt(table, 2)
    table.place([2, 3], [1, 1], [2, 2])
    with pytest.raises(RemoteError, match="row 7 is settled"):
        table.advance([7], 8)
    with pytest.raises(RemoteError, match="row 3 is settled"):
        table.advance([2, 3], 8)


class Walk:
    """One random run of table and naive model side by side."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        prompt = self.random.randint(1, 12)
        self.naive = Naive(prompt)
        self.table = SlotTable(prompt, context=400, spare=400)
        self.next = prompt
        self.slot: dict[int, int] = {}  # of every row placed that was alive when last checked
        self.stands: dict[int, int] = {}  # which row the worker has in each slot
        for part in _prompt(self.table, prompt, self.random.randint(1, 6)):
            rows = part.positions.tolist()
            self.slot.update(zip(rows, part.slots.tolist(), strict=True))
            self.stands.update(zip(part.slots.tolist(), rows, strict=True))

    def grow(self) -> None:
        """A random segment; some of its rows are dead on arrival and dropped by `alive`."""
        known = [row for row in self.naive.parent if row in self.slot]
        rows: list[tuple[int, int]] = []
        for _ in range(self.random.randint(1, 8)):
            below = [r for r in known[-12:] if r >= self.naive.root] + [r for r, _ in rows]
            rows.append((self.next, self.random.choice(below or [self.naive.root])))
            self.next += 1
        if self.naive.root not in self.slot:
            self.place([(self.naive.root, self.naive.parent[self.naive.root])])
        self.place(rows)

    def place(self, rows: list[tuple[int, int]]) -> None:
        naive = self.naive
        for row, parent in rows:
            naive.parent[row] = parent
        keep = self.table.alive([r for r, _ in rows], [p for _, p in rows])
        assert keep == [i for i, (row, _) in enumerate(rows) if naive.lives(row)]
        rows = [rows[i] for i in keep]
        if not rows:
            return
        taken = {slot for row, slot in self.slot.items() if naive.lives(row)}
        placement = _place(self.table, naive, rows)
        self.move(placement.moves)
        slots = placement.slots.tolist()
        assert len(set(slots)) == len(slots)
        assert not taken.intersection(slots)
        for (row, _), slot in zip(rows, slots, strict=True):
            if (position := len(naive.lineage(row)) - 1) not in {*taken, *slots}:
                assert slot == position  # never elsewhere if its place is free
            self.stands[slot] = row
            self.slot[row] = slot
        for line, (row, _) in enumerate(rows):
            self.check_sight(placement, line, row)

    def move(self, moves: Moves | None) -> None:
        """What the worker does before the pass."""
        self.stands |= {t: self.stands[s] for t, s in _pairs(moves).items()}

    def check_sight(self, placement: Placement, line: int, row: int) -> None:
        """A row sees one slot for each of its ancestors, in which that one stands by now."""
        seen = _visible(placement, line)
        path = self.naive.lineage(row)
        assert sorted(self.stands[slot] for slot in seen) == sorted(path)
        assert placement.positions[line] == len(path) - 1
        assert placement.base <= self.table.certain
        assert [self.stands[slot] for slot in range(placement.base)] == path[: placement.base]

    def again(self) -> None:
        """Some rows of the tree, computed once more."""
        unsure = [row for row in self.slot if row in self.table]
        rows = self.random.sample(unsure, min(len(unsure), 4))
        placement = self.table.again(rows)
        self.move(placement.moves)
        assert placement.slots.tolist() == [self.table.slot(row) for row in rows]
        for line, row in enumerate(rows):
            self.check_sight(placement, line, row)

    def advance(self) -> None:
        naive = self.naive
        before = dict(self.slot)
        path = naive.lineage(self.random.choice(self._below_root()))
        settled = path[path.index(naive.root) :]
        if self.random.random() < 0.3:  # a miss: the new root has not come yet
            naive.parent[self.next] = settled[-1]
            root, self.next = self.next, self.next + 1
        else:
            root = settled.pop()
        self.table.advance(settled, root)
        naive.root = root
        living = [naive.lives(row) for row in before]
        assert self.table.living(before) == living
        self.slot = {row: slot for row, slot in before.items() if naive.lives(row)}
        places = naive.lineage(root)[: self.table.certain]
        self.slot |= {row: place for place, row in enumerate(places)}
        self.slot |= {row: self.table.slot(row) for row in self.slot if row in self.table}
        assert self.table.high == max(self.slot.values()) + 1
        if self.random.random() < 0.3:  # kept, or the beginning of another text
            first = self.table.first(self.table.certain).tolist()
            assert [self.stands[slot] for slot in first] == places

    def _below_root(self) -> list[int]:
        root = self.naive.root
        found = [r for r in self.slot if r >= root and root in self.naive.lineage(r)]
        return [row for row in found if row != root] or [root]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_random_trees_equal_the_naive_model(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(12):
        walk.grow()
        walk.again()
        if walk.naive.root in walk.slot and walk.random.random() < 0.7:
            walk.advance()
