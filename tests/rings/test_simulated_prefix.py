"""Simulated rings whose requests begin with rows of earlier ones: right rows only give the text."""

import asyncio

import numpy as np
import pytest
from simulated import CONTEXT, LAYERS, PROFILE, PROMPT, recorded, with_ring, write, written

from gardener.decoding.policy import POLICIES
from gardener.errors import LocalError
from gardener.holder import kept
from gardener.model.checkpoint.slices import Slice
from gardener.model.kv_slots import SlotTable
from gardener.model.placement import Placement
from gardener.protocol.messages import Open
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.ring import SimulatedRing
from gardener.rings.simulate.stage import SimulatedStage
from gardener.rings.simulate.worker import Meter
from gardener.stages.forward import PlacedSegment

WROTE = written()
SECOND = (*PROMPT, *WROTE[:8], 4, 4)
"""What was asked next: 15 tokens are those of before."""

SHARED = 15


def library() -> Library:
    return Library([recorded(), recorded(SECOND)], (LAYERS,))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("stages", [1, 3])
def test_a_ring_writes_the_same_from_what_it_keeps(
    policy: str, stages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LEAST_ROWS", 8)

    async def scenario(ring: SimulatedRing) -> None:
        assert await write(ring, policy, 8) == WROTE[:8]
        first = ring.holder.session
        assert first is not None
        assert await write(ring, policy, prompt=SECOND) == written(SECOND)
        second = ring.holder.session
        assert second is not None
        # The root was not judged, and its row may be missing; it is the last one here.
        assert second.speculation.prefix == (
            first.request,
            min(first.speculation.announced, SHARED),
        )
        assert second.speculation.announced >= len(SECOND) + len(second.tokens) - 1
        await asyncio.sleep(1.0)  # what is told last arrives
        schedulers = [seat.node.scheduler for seat in ring.seats]
        assert all(scheduler.requests == () for scheduler in schedulers)
        assert all(scheduler.kept == (second.request,) for scheduler in schedulers)

    with_ring(scenario, stages, held=library())


class Stage:
    """The only stage, at which request 9 has computed its prompt and two branches after it."""

    def __init__(self) -> None:
        whole = Slice(0, LAYERS, LAYERS)
        self.stage = SimulatedStage(whole, library(), PROFILE.stage(1, 1), Meter(), width=1)
        self.stage.open(Open(9, len(PROMPT), CONTEXT))
        self.table = SlotTable(len(PROMPT), CONTEXT)
        at, last, end = range(len(PROMPT)), len(PROMPT) - 1, len(PROMPT)
        self.run(9, self.table.place(at, [i - 1 for i in at], at), *PROMPT)
        wrong = (WROTE[0] + 1) % 5
        rows = self.table.place([end, end + 1, end + 2], [last, last, end + 1], [end, end, end + 1])
        self.run(9, rows, wrong, WROTE[0], WROTE[1], first=0)
        self.table.advance([last, end + 1], end + 2)

    def run(
        self, request: int, place: Placement, *tokens: int, first: int | None = None
    ) -> tuple[int, ...]:
        judged = range(len(tokens) - 1 if first is None else first, len(tokens))
        done = self.stage.run([PlacedSegment(request, place, tokens=tokens, pick_rows=judged)])
        assert done is not None
        return done[0].picks

    def second(self, slots: list[int]) -> int:
        """What another request picks after its prompt, that begins with the rows in these slots."""
        shared = len(slots)
        message = Open(8, len(SECOND), CONTEXT, prefix=(9, shared))
        self.stage.open(message, np.array(slots))
        table = SlotTable(len(SECOND), CONTEXT, shared=shared)
        ids = range(shared, len(SECOND))
        place = table.place(ids, [i - 1 for i in ids], ids)
        return self.run(8, place, *SECOND[shared:])[0]


def test_a_request_goes_on_from_the_rows_that_it_is_given() -> None:
    stage = Stage()
    slots = stage.table.first(9).tolist()
    assert slots == [0, 1, 2, 3, 4, 5, 6, 23, 8]
    assert stage.second(slots) == written(SECOND)[0] != 0
    # From those that are kept, and closed after that.
    stage.stage.keep(9, stage.table.keep_certain())
    stage.stage.close(8)
    assert stage.second(list(range(9))) == written(SECOND)[0]
    stage.stage.close(9)
    stage.stage.close(8)
    assert stage.stage._texts == {}


@pytest.mark.parametrize("slots", [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 5]])
def test_from_wrong_rows_nobody_knows_how_to_go_on(slots: list[int]) -> None:
    stage = Stage()
    with pytest.raises(LocalError, match="nothing was recorded for this prompt"):
        stage.second(slots)
