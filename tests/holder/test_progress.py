"""A stage that is slow is waited for, one that is stuck is named."""

import threading
from collections.abc import Callable

import pytest
from loopback import FakeStage, holding, ring, run, truth, write

from gardener.decoding.events import Room
from gardener.decoding.limits import Limits
from gardener.decoding.policy import Bounds, Plain
from gardener.decoding.speculation import Speculation
from gardener.errors import PeerLost
from gardener.holder.advice import Advice, called, start_again
from gardener.holder.progress import FRESH, Progress
from gardener.protocol.messages import Card
from gardener.protocol.reports import Busy

COMMAND = "gardener-node --stage 2 --stages 2"


def cards() -> list[Card]:
    """Of a ring of two stages, the holder's first."""
    return [
        card_at(0, peer="10.0.0.2:7001"),
        card_at(1, peer="10.0.0.3:7002\x1b[2J"),
        card_at(2, peer="10.0.0.1:7000", command=COMMAND),
    ]


def card_at(stage: int, peer: str = "", command: str = "") -> Card:
    first, end = (16 * (stage - 1), 16 * stage) if stage else (0, 0)
    return Card(
        stage, f"oak{stage}", "1", first, end, 32, 1, "m", "float32", "none", 0,
        peer=peer, command=command,
    )  # fmt: skip


def test_a_stage_is_called_by_where_it_is_dialled_and_started_with_its_command() -> None:
    assert called(1, cards()) == "stage 1 at 10.0.0.2:7001"
    assert called(2, cards()) == "stage 2 at 10.0.0.3:7002?[2J"
    assert called(3, cards()) == "stage 3"
    assert start_again(1, cards()) == "start stage 1 again"
    assert start_again(2, cards()) == f"start stage 2 again on oak2 with `{COMMAND}`"
    advice = Advice(cards)
    assert (advice.called(2), advice.about(2)) == (called(2, cards()), start_again(2, cards()))
    brief = advice.brief
    assert (brief.called(2), brief.about(2)) == ("stage 2", "start stage 2 again")
    ours = Advice(cards, lambda stage: f"mend {stage}")
    assert (ours.called(2), ours.about(2), ours.brief.about(2)) == ("stage 2", "mend 2", "mend 2")


def speculation() -> Speculation:
    """A request of which the prompt is under way."""
    made = Speculation(7, (1, 2, 3), Plain(Bounds()), Limits(50, 100), chunk=4)
    made.handle(Room())
    return made


def busy(stage: int, layer: int, seconds: float, seq: int = 0) -> Busy:
    return Busy(stage, 7, seq, layer, round(seconds * 1e6))


def stalled(progress: Progress, now: float) -> str:
    return progress.stalled(speculation(), 120.0, now, 32, Advice(cards))


def test_what_moves_counts_and_what_stands_does_not() -> None:
    progress = Progress()
    assert progress.moved < 0
    for report, at, moved in [
        (busy(2, 17, 2.0), 10.0, 10.0),  # it has only just begun, as far as is known
        (busy(2, 17, 4.0), 12.0, 10.0),
        (busy(1, 3, 2.0), 13.0, 13.0),  # another stage
        (busy(2, 18, 6.0), 14.0, 14.0),  # another layer
        (busy(2, 18, 2.0, seq=1), 16.0, 16.0),  # another segment
        (busy(2, 18, 4.0, seq=1), 18.0, 16.0),
    ]:
        progress.heard(report, at)
        assert progress.moved == moved


def test_the_sentence_names_who_has_stood_for_longest() -> None:
    progress = Progress()
    for at in range(10, 132, 2):
        progress.heard(busy(2, 17, at - 8.0), float(at))
    progress.heard(busy(1, 32, 2.0), 130.0)
    assert stalled(progress, 131.0) == (
        "no verdict came and no stage got further for 120 s, though every stage is there: segment "
        "0 (3 rows of the prompt) is under way, and stage 2 at 10.0.0.3:7002?[2J has computed "
        "segment 0 for 122 s, and been in layer 17 of 32 for 121 s, stage 1 at 10.0.0.2:7001 has "
        "computed segment 0 for 2 s, and been in the head for 1 s; no token was written yet; start "
        f"stage 2 again on oak2 with `{COMMAND}`, then repeat the request"
    )
    told = stalled(progress, 131.0 + FRESH)
    assert "is under way, and no stage says that it computes; " in told
    assert told.endswith("; see what the stages printed, then repeat the request")


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gardener.stages.node.LONG", 0.02)
    monkeypatch.setattr("gardener.stages.liveness.LONG", 0.02)


def stepping(stage: FakeStage, steps: int, stop: threading.Event) -> Callable[[], None]:
    """A pass of so many layers, a moment each. Runs on the worker thread."""

    def work() -> None:
        for step in range(steps):
            stage.layer = step
            if stop.wait(0.1):
                return

    return work


@pytest.mark.usefixtures("_often")
def test_a_pass_that_takes_long_is_waited_for_as_long_as_it_gets_further() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made, stall=0.4) as holder:
            stage = made.seats[2].stage
            step = stepping(stage, 10, threading.Event())

            def once() -> None:
                stage.trouble = lambda: None
                step()

            stage.trouble = once
            assert await write(holder, policy="plain") == truth()

    run(scenario)


@pytest.mark.usefixtures("_often")
def test_a_stage_that_is_stuck_is_named_and_the_ring_stands() -> None:
    stop = threading.Event()

    async def scenario() -> None:
        async with ring(2) as made, holding(made, stall=0.4) as holder:
            stage = made.seats[2].stage

            def stuck() -> None:
                stage.layer = 1
                stop.wait(20)

            stage.trouble = stuck
            try:
                with pytest.raises(PeerLost) as caught:
                    await write(holder, policy="plain")
                at = made.address(2)
                assert f"stage 2 at {at} has computed segment 0 for " in str(caught.value)
                assert ", and been in layer 1 of 2 for " in str(caught.value)
                assert str(caught.value).endswith("start stage 2 again, then repeat the request")
                assert str(at) not in caught.value.over_http
                assert holder.stands
            finally:
                stop.set()
                stage.trouble = lambda: None
            assert await write(holder, policy="plain") == truth()

    run(scenario)
