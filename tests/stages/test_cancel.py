"""Work that nobody wants any more: passes whose rows have died, segments of closed requests.

A scheduler with a stage of 16 layers, each of which takes 10 ms of a virtual clock.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from simulated import CONTEXT, LAYERS, PROFILE, PROMPT, library, run, written

from gardener.errors import RemoteError
from gardener.model.checkpoint.slices import Slice
from gardener.model.kv_slots import SlotTable
from gardener.protocol.messages import Advance, Open, Segment, Verdict
from gardener.rings.simulate.stage import SimulatedStage
from gardener.rings.simulate.worker import Meter, VirtualWorker
from gardener.runtime import clock
from gardener.runtime.trace import Trace
from gardener.stages import queue
from gardener.stages.forward import PlacedSegment
from gardener.stages.scheduler import Scheduler

LAYER = 0.010
PASS = LAYERS * LAYER
ROOT = len(PROMPT) - 1
WRONG = (written()[0] + 1) % 5


class Harness:
    """A scheduler of the only stage, and what comes off it, when."""

    def __init__(self) -> None:
        meter = Meter()
        whole = Slice(0, LAYERS, LAYERS)
        self.stage = SimulatedStage(whole, library(), PROFILE.stage(1, 1), meter, width=1)
        self.out: list[Verdict] = []
        self.at: list[float] = []
        self.failures: list[tuple[int, int, str]] = []
        self.scheduler = Scheduler(
            self.stage, VirtualWorker("stage", meter), Trace(), self._out, lambda: None, self._fail
        )
        self._begin = clock.now()

    def _out(self, message: Segment | Verdict) -> None:
        assert isinstance(message, Verdict)
        self.out.append(message)
        self.at.append(clock.now() - self._begin)

    def _fail(self, request: int, seq: int, error: BaseException) -> None:
        self.failures.append((request, seq, str(error)))

    def open(self, request: int, prompt: tuple[int, ...] = PROMPT) -> None:
        """A request, and its prompt is under way."""
        ids = tuple(range(len(prompt)))
        self.scheduler.open(Open(request, len(prompt), CONTEXT))
        parents = tuple(i - 1 for i in ids)
        self.scheduler.receive(Segment(request, 0, ids, parents, ids, prompt, None, ()))

    def send(self, seq: int, *nodes: tuple[int, int, int, int], request: int = 9) -> None:
        """Of each row id, parent, position and token."""
        ids, parents, positions, tokens = zip(*nodes, strict=True)
        self.scheduler.receive(Segment(request, seq, ids, parents, positions, tokens, None, ()))


def play(scenario: Callable[[Harness], Awaitable[None]]) -> None:
    """With a harness, under a virtual clock."""

    async def main() -> None:
        await scenario(Harness())

    run(main)


async def decoded(harness: Harness) -> None:
    """The prompt of request 9 is computed: its root has a pick."""
    harness.open(9)
    await asyncio.sleep(PASS + 0.001)
    assert (harness.out[-1].ids, harness.out[-1].picks) == ((ROOT,), (written()[0],))


# --- a pass whose rows die -----------------------------------------------------------------------


def test_a_pass_ends_at_the_next_layer_once_an_advance_has_killed_its_rows() -> None:
    async def scenario(harness: Harness) -> None:
        await decoded(harness)
        begin = clock.now()
        harness.send(1, (ROOT + 1, ROOT, ROOT + 1, WRONG))
        await asyncio.sleep(2.5 * LAYER)
        harness.scheduler.advance(Advance(9, (ROOT,), ROOT + 2))  # a miss
        harness.send(2, (ROOT + 2, ROOT, ROOT + 1, written()[0]))
        await asyncio.sleep(PASS + LAYER)
        assert [verdict.seq for verdict in harness.out] == [0, 1, 2]
        dead, right = harness.out[1:]
        assert (dead.ids, dead.picks, dead.times[0].rows) == ((), (), 0)
        assert dead.times[0].compute == pytest.approx(3 * LAYER * 1e6, abs=2)
        # Nobody waits any longer for what came to nothing.
        assert harness.at[2] - begin + harness._begin == pytest.approx(3 * LAYER + PASS, abs=1e-4)
        assert right.picks == (written()[1],)

    play(scenario)


def test_a_pass_of_which_one_row_lives_goes_on() -> None:
    async def scenario(harness: Harness) -> None:
        await decoded(harness)
        first = (ROOT + 1, ROOT, ROOT + 1, WRONG)
        harness.send(1, first, (ROOT + 2, ROOT, ROOT + 1, written()[0]))
        await asyncio.sleep(2.5 * LAYER)
        harness.scheduler.advance(Advance(9, (ROOT,), ROOT + 2))
        await asyncio.sleep(PASS)
        verdict = harness.out[-1]
        assert (verdict.seq, verdict.ids, verdict.picks) == (1, (ROOT + 2,), (written()[1],))
        assert verdict.times[0].rows == 2
        assert verdict.times[0].compute == pytest.approx(PASS * 1e6, abs=2)

    play(scenario)


def test_a_pass_of_two_segments_is_in_vain_when_both_are() -> None:
    meter = Meter()
    whole = Slice(0, LAYERS, LAYERS)
    stage = SimulatedStage(whole, library(), PROFILE.stage(1, 1), meter, width=1)
    stage.open(Open(9, 1, 1))
    slots, at = SlotTable(len(PROMPT), CONTEXT), range(len(PROMPT))
    stage.run(
        [
            PlacedSegment(
                9, slots.place(at, [i - 1 for i in at], at), tokens=PROMPT, pick_rows=[ROOT]
            )
        ]
    )
    meter.take()
    batch = [
        PlacedSegment(9, slots.place([node], [ROOT], [ROOT + 1]), tokens=[token], pick_rows=[0])
        for node, token in ((ROOT + 1, WRONG), (ROOT + 2, written()[0]))
    ]
    assert stage.run(batch) is not None
    bill = meter.take()
    assert (bill.seconds, bill.steps, bill.cancelled()) == (PASS, LAYERS, False)
    batch[0].cancelled.set()
    assert not bill.cancelled()
    batch[1].cancelled.set()
    assert bill.cancelled()


# --- a request that ends -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "give_up", "clear"])
def test_what_is_computed_for_a_request_ends_with_it(how: str) -> None:
    async def scenario(harness: Harness) -> None:
        await decoded(harness)
        begin = clock.now()
        harness.send(1, (ROOT + 1, ROOT, ROOT + 1, written()[0]))
        await asyncio.sleep(2.5 * LAYER)
        end = {
            "close": lambda: harness.scheduler.close(9),
            "give_up": lambda: harness.scheduler.give_up(9),
            "clear": harness.scheduler.clear,
        }[how]
        end()
        harness.open(8)
        await asyncio.sleep(PASS + LAYER)
        assert [(verdict.request, verdict.seq) for verdict in harness.out] == [(9, 0), (8, 0)]
        assert harness.at[1] - begin + harness._begin == pytest.approx(3 * LAYER + PASS, abs=1e-4)
        assert harness.failures == []

    play(scenario)


@pytest.mark.parametrize("how", ["close", "give_up"])
def test_what_waits_for_a_request_goes_with_it(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST_BYTES", 4 * 2 * queue.ROW_BYTES)

    async def scenario(harness: Harness) -> None:
        harness.open(9)
        for seq in range(1, 5):
            harness.send(seq, (ROOT + seq, ROOT + seq - 1, ROOT + seq, written()[seq - 1]))
        assert harness.scheduler.waiting == 5
        {"close": harness.scheduler.close, "give_up": harness.scheduler.give_up}[how](9)
        assert harness.scheduler.waiting == 1  # what is being computed
        harness.open(8)  # would be one too many, if they waited still
        await asyncio.sleep(2 * PASS)
        assert [(verdict.request, verdict.picks) for verdict in harness.out] == [
            (8, (written()[0],))
        ]
        assert (harness.failures, harness.scheduler.waiting) == ([], 0)

    play(scenario)


def test_what_fails_for_a_closed_request_is_told_to_nobody() -> None:
    async def scenario(harness: Harness) -> None:
        harness.open(9, (4, 4, 4))  # which nobody has recorded
        harness.open(8)
        await asyncio.sleep(LAYER / 2)
        harness.scheduler.close(9)
        await asyncio.sleep(2 * PASS)
        assert harness.failures == []
        assert [verdict.request for verdict in harness.out] == [8]
        with pytest.raises(RemoteError, match="which is not open"):
            harness.scheduler.advance(Advance(9, (), 3))

    play(scenario)


def test_the_table_notices_what_fails() -> None:
    """Or else the test before this one says nothing."""

    async def scenario(harness: Harness) -> None:
        harness.open(9, (4, 4, 4))
        await asyncio.sleep(2 * PASS)
        ((request, seq, why),) = harness.failures
        assert (request, seq) == (9, 0)
        assert "nothing was recorded" in why

    play(scenario)
