"""A simulated stage writes the recorded text for right rows only: what is lost, moved or sees the
wrong slots gets another pick."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from simulated import CONTEXT, LAYERS, PROFILE, PROMPT, library, with_ring, write, written

from gardener.errors import RemoteError
from gardener.model.checkpoint.slices import Slice
from gardener.model.kv_slots import SlotTable
from gardener.model.placement import Placement
from gardener.protocol.messages import Open, Segment
from gardener.protocol.tensors import Tensor
from gardener.rings.simulate.ring import SimulatedRing
from gardener.rings.simulate.stage import SimulatedStage
from gardener.rings.simulate.worker import Meter
from gardener.stages.forward import PlacedSegment

WROTE = written()
LAST = len(PROMPT) - 1
OFF = 0
"""What a row off the text picks. The right picks below are all others."""


class Rows:
    """Request 9 at a stage that is alone, its prompt computed."""

    def __init__(self) -> None:
        whole = Slice(0, LAYERS, LAYERS)
        self.stage = SimulatedStage(whole, library(), PROFILE.stage(1, 1), Meter(), width=1)
        self.stage.open(Open(9, 1, 1))
        self.table = SlotTable(len(PROMPT), CONTEXT)
        at = range(len(PROMPT))
        prompt = self.table.place(at, [i - 1 for i in at], at)
        assert self.picks(prompt, *PROMPT)[-1] == WROTE[0]

    def place(self, *nodes: tuple[int, int, int]) -> Placement:
        """Of each row id, parent and position."""
        ids, parents, positions = zip(*nodes, strict=True)
        return self.table.place(ids, parents, positions)

    def picks(self, placement: Placement, *tokens: int) -> tuple[int, ...]:
        # Rows of the prompt before its last are not judged.
        first = LAST if len(tokens) == len(PROMPT) else 0
        job = PlacedSegment(9, placement, tokens=tokens, pick_rows=range(first, len(tokens)))
        done = self.stage.run([job])
        assert done is not None
        return done[0].picks


def branches(rows: Rows) -> Placement:
    """Two true tokens, one below the other, and a wrong sibling of the first."""
    first, place = LAST + 1, len(PROMPT)
    return rows.place((first, LAST, place), (first + 1, LAST, place), (first + 2, first, place + 1))


TOKENS = (WROTE[0], (WROTE[0] + 1) % 5, WROTE[1])


def test_rows_on_the_text_pick_what_was_recorded_and_others_do_not() -> None:
    assert OFF not in WROTE[1:3], "or else the tests here say nothing"
    rows = Rows()
    assert rows.picks(branches(rows), *TOKENS) == (WROTE[1], OFF, WROTE[2])


def lost_ancestor(mask: NDArray[np.bool_], slots: NDArray[np.int64]) -> None:
    mask[2, slots[0]] = False


def sees_a_sibling_too(mask: NDArray[np.bool_], slots: NDArray[np.int64]) -> None:
    mask[2, slots[1]] = True


def sees_a_sibling_instead(mask: NDArray[np.bool_], slots: NDArray[np.int64]) -> None:
    mask[2, slots[0]], mask[2, slots[1]] = False, True


def line_of_the_sibling(mask: NDArray[np.bool_], slots: NDArray[np.int64]) -> None:
    mask[2] = mask[1]


@pytest.mark.parametrize(
    "spoil",
    [lost_ancestor, sees_a_sibling_too, sees_a_sibling_instead, line_of_the_sibling],
)
def test_a_row_with_a_wrong_line_of_the_mask_is_off_the_text(
    spoil: Callable[[NDArray[np.bool_], NDArray[np.int64]], None],
) -> None:
    rows = Rows()
    placement = branches(rows)
    assert placement.mask is not None
    mask = placement.mask.copy()
    spoil(mask, placement.slots - placement.base)
    assert rows.picks(replace(placement, mask=mask), *TOKENS) == (WROTE[1], OFF, OFF)


def test_a_row_that_sees_every_slot_of_a_forked_text_is_off_it() -> None:
    rows = Rows()
    assert rows.picks(replace(branches(rows), mask=None), *TOKENS)[2] == OFF


def test_what_hangs_below_a_wrong_row_is_off_the_text() -> None:
    rows = Rows()
    placement = branches(rows)
    assert rows.picks(placement, TOKENS[1], TOKENS[1], TOKENS[2]) == (OFF, OFF, OFF)


def test_a_row_at_a_wrong_place_is_off_the_text() -> None:
    rows = Rows()
    placement = branches(rows)
    late = replace(placement, positions=placement.positions + 1)
    assert rows.picks(late, *TOKENS) == (OFF, OFF, OFF)


def test_a_slot_that_is_used_again_does_not_stand_for_what_stood_there() -> None:
    rows = Rows()
    rows.picks(branches(rows), *TOKENS)
    rows.table.advance([], LAST + 2)  # the wrong one: the others die, their slots are free
    again = rows.place((LAST + 4, LAST + 2, len(PROMPT) + 1))
    assert again.slots[0] == len(PROMPT) + 1, "the slot of a true row"
    assert rows.picks(again, WROTE[1]) == (OFF,)


@pytest.mark.parametrize("policy", ["serial", "pipedec", "gardener"])
def test_a_ring_whose_masks_are_wrong_writes_another_text(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = SlotTable.place

    def blind(table: SlotTable, *rows: list[int]) -> Placement:
        """Rows of a tree do not see the last one that is certain."""
        placement = place(table, *rows)
        if placement.mask is not None and rows[0][0] >= len(PROMPT):
            base = placement.base - 1
            return replace(
                placement,
                base=base,
                mask=np.pad(placement.mask, ((0, 0), (1, 0))),
                slot_positions=np.append(base, placement.slot_positions),
            )
        return placement

    monkeypatch.setattr(SlotTable, "place", blind)

    async def scenario(ring: SimulatedRing) -> None:
        assert await write(ring, policy) != WROTE

    with_ring(scenario, 2)


def test_only_the_first_stage_takes_rows_without_hidden_states() -> None:
    def stage(number: int) -> SimulatedStage:
        layers = Slice((number - 1) * LAYERS // 2, number * LAYERS // 2, LAYERS)
        profile = PROFILE.stage(number, 2)
        return SimulatedStage(layers, library(), profile, Meter(), width=1)

    def segment(hidden: Tensor | None) -> Segment:
        return Segment(9, 0, (0,), (-1,), (0,), (3,), hidden, ())

    first, last = stage(1), stage(2)
    hidden = Tensor("float32", (1, 1), bytes(4))
    first.check(segment(None))
    last.check(segment(hidden))
    for wrong, states in ((first, hidden), (last, None)):
        with pytest.raises(RemoteError, match="the first stage takes rows without hidden states"):
            wrong.check(segment(states))
    with pytest.raises(RemoteError, match="hidden states are 2 wide"):
        last.check(segment(Tensor("float32", (1, 2), bytes(8))))
    for each in (first, last):  # all rows died on the way
        each.check(Segment(9, 0, (), (), (), (), None, ()))
