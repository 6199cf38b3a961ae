"""The tokens that a stage keeps of a request: certain ones in their order, others by their row."""

import random

import pytest

from gardener.errors import LocalError
from gardener.model.kv_slots import SlotTable
from gardener.stages.text import Text


def tree() -> Text:
    """The prompt 5 6, its root row 1; below it rows 2 and 3, below 2 rows 4 and 5."""
    text = Text(2)
    text.place([0], [-1], [5])
    text.place([1, 2], [0, 1], [6, 20])
    text.place([3, 4, 5], [1, 2, 2], [30, 40, 50])
    return text


def test_paths_follow_what_is_certain() -> None:
    text = tree()
    assert text.certain == [5, 6]
    assert [text.path(row) for row in (1, 2, 3, 4)] == [(), (20,), (30,), (20, 40)]


def test_an_advance_settles_a_path_and_forgets_what_died() -> None:
    text = tree()
    text.advance([1, 2], 5)
    assert text.certain == [5, 6, 20, 50]
    assert text.path(5) == text.path(3) == text.path(4) == ()
    text.place([6, 7], [5, 6], [60, 70])
    assert text.path(7) == (60, 70)


def test_a_root_may_come_after_its_advance_and_advances_may_repeat() -> None:
    text = tree()
    text.advance([1, 2], 9)
    text.advance([1], 2)  # overtaken
    text.advance([1, 2], 9)
    assert text.certain == [5, 6, 20]
    text.place([9, 10], [2, 9], [90, 100])
    assert text.certain == [5, 6, 20, 90]
    assert text.path(10) == (100,)


def test_a_text_may_begin_with_that_of_another_request() -> None:
    kept = tree()
    kept.advance([1], 2)
    text = Text(4, kept.prefix(3))
    text.place([3, 4], [2, 3], [7, 8])
    assert text.certain == [5, 6, 20, 7]
    assert text.path(4) == (8,)
    kept.advance([2], 4)
    assert text.prefix(3) == [5, 6, 20]
    with pytest.raises(LocalError, match="5 tokens were asked for, 4 are certain"):
        kept.prefix(5)


@pytest.mark.parametrize("seed", range(20))
def test_it_keeps_what_the_slots_keep(seed: int) -> None:
    """Trees that grow and are cut at random: the same rows, with the texts that lead to them."""
    chance = random.Random(seed)
    slots, text = SlotTable(3, 200), Text(3)
    texts = {row: tuple(range(100, 101 + row)) for row in range(3)}  # by row, as it was placed
    slots.place([0, 1, 2], [-1, 0, 1], [0, 1, 2])
    text.place([0, 1, 2], [-1, 0, 1], texts[2])
    parents: dict[int, int] = {}
    for row in range(3, 60):
        alive = [slots.root, *(each for each in parents if each in slots)]
        parents[row] = parent = chance.choice(alive)
        texts[row] = (*texts[parent], row)
        slots.place([row], [parent], [len(texts[row]) - 1])
        text.place([row], [parent], [row])
        if chance.random() < 0.2:
            path = [row]
            while parents.get(path[0], slots.root) != slots.root:
                path.insert(0, parents[path[0]])
            settled, root = [slots.root, *path[:-1]], path[-1]
            slots.advance(settled, root)
            text.advance(settled, root)
        assert len(text.certain) == slots.certain
        assert tuple(text.certain) == texts[slots.root]
        for each in texts:
            if each in slots:
                assert (*text.certain, *text.path(each)) == texts[each]
            else:
                assert text.path(each) == ()
