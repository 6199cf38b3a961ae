"""One real node between two links that the test holds."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest
from loopback import Ear, FakeStage, Ring, Seat, card, ring, run, slow, until

from gardener.errors import PeerLost, UserError
from gardener.net.dial import dial
from gardener.net.link import Link
from gardener.net.listen import listen
from gardener.protocol import messages as m
from gardener.protocol import reports as r
from gardener.protocol import tensors as t
from gardener.stages import queue, room
from gardener.stages.forward import ComputedSegment

HIDDEN = t.Tensor("float32", (1, 1), bytes(4))
OPEN = m.Open(9, 1, 64)
NONCE = bytes(16)


def segment(seq: int = 0, request: int = 9, node: int = 0) -> m.Segment:
    """One row, on its way into stage 2."""
    return m.Segment(request, seq, (node,), (node - 1,), (node,), (7,), HIDDEN, ())


class Between:
    """Stage 2 of 3, with the test as stage 1 above it and as stage 3 below."""

    def __init__(self, made: Ring, seat: Seat) -> None:
        self.made, self.seat = made, seat
        self.above, self.below = Ear(), Ear()
        self.up: Link

    @property
    def stage(self) -> FakeStage:
        return self.seat.stage

    async def dial(self) -> Link:
        link = await dial(
            self.made.address(2),
            card(1, 3),
            self.above,
            admit=lambda peer: None,
            patience=5.0,
            waiting=lambda why: None,
        )
        await until(lambda: self.seat.node.upstream)
        return link

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        listener = await listen(
            self.made.address(3),
            card(3, 3),
            self.below,
            admit=lambda peer: None,
            met=self.below.links.append,
        )
        try:
            yield
        finally:
            await listener.close()
            for link in self.below.links:
                await link.close("the test is over")


@contextlib.asynccontextmanager
async def between() -> AsyncIterator[Between]:
    async with ring(3, start=False) as made:
        it = Between(made, made.start(2))
        async with it.listening():
            it.up = await it.dial()
            await until(lambda: it.below.links and it.seat.node.downstream)
            yield it
            await it.up.close("the test is over")


def test_it_passes_on_what_it_computes_and_what_concerns_all() -> None:
    async def scenario() -> None:
        async with between() as it:
            it.up.send(OPEN, segment(), m.Advance(9, (), 0), m.Close(9))
            await until(lambda: it.below.of(m.Close))
            it.up.send(OPEN, segment())
            await until(lambda: it.below.of(m.Segment))
            *_, passed = it.below.of(
                m.Segment
            )  # the first one may have been quicker than its Close
            assert isinstance(passed, m.Segment)
            assert (passed.ids, passed.hidden, len(passed.times)) == ((0,), HIDDEN, 1)

    run(scenario)


def test_an_advance_overtakes_what_is_computed() -> None:
    async def scenario() -> None:
        async with between() as it:
            it.stage.trouble = slow(0.2)
            it.up.send(OPEN, segment(), m.Advance(9, (), 0))
            await until(lambda: it.below.of(m.Segment))
            kinds = [type(message) for message in it.below.messages]
            assert kinds == [m.Open, m.Advance, m.Segment]

    run(scenario)


def test_the_survey_gets_its_card_or_says_what_is_in_the_way() -> None:
    async def scenario() -> None:
        async with ring(3, start=False) as made:
            it = Between(made, made.start(2))
            up = await it.dial()
            up.send(m.Survey(NONCE, (card(1, 3),)))
            await until(lambda: it.above.of(r.Waiting))
            said = it.above.of(r.Waiting)[0]
            assert isinstance(said, r.Waiting)
            assert (said.stage, said.peer) == (2, 3)
            assert said.why.startswith(
                f"stage 2 is waiting for stage 3 at {made.address(3)}: connection refused"
            )
            async with it.listening():
                await until(lambda: it.below.of(m.Survey))
                survey = it.below.messages[0]
                assert isinstance(survey, m.Survey)
                assert survey.cards[0] == card(1, 3)
                delay, bandwidth = survey.cards[1].delay, survey.cards[1].bandwidth
                assert delay > 0  # of its link to stage 3, which was measured before
                peer = str(made.address(3))
                mine = msgspec.structs.replace(
                    card(2, 3), delay=delay, bandwidth=bandwidth, peer=peer
                )
                assert it.below.messages == [m.Survey(NONCE, (card(1, 3), mine))]
            await up.close("the test is over")

    run(scenario)


def test_every_survey_is_answered_while_the_next_stage_is_not_there() -> None:
    """And only the newest one goes on once it is there."""

    async def scenario() -> None:
        async with ring(3, start=False) as made:
            it = Between(made, made.start(2))
            up = await it.dial()
            for number in range(3):
                up.send(m.Survey(bytes([number] * 16), (card(1, 3),)))
                await until(lambda count=number: len(it.above.of(r.Waiting)) > count)  # type: ignore[misc]
            async with it.listening():
                await until(lambda: it.below.of(m.Survey))
                up.send(m.Survey(NONCE, (card(1, 3),)))
                await until(lambda: len(it.below.of(m.Survey)) == 2)
                nonces = [x.nonce for x in it.below.of(m.Survey) if isinstance(x, m.Survey)]
                assert nonces == [bytes([2] * 16), NONCE]
            await up.close("the test is over")

    run(scenario)


def test_it_waits_for_a_next_stage_that_reads_too_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = t.Tensor("float32", (1, 2**18), bytes(2**20))
    count = 32  # of these are more than the buffers of the kernel take

    async def scenario() -> None:
        async with between() as it:
            monkeypatch.setattr(it.stage, "run", lambda jobs: [ComputedSegment(wide) for _ in jobs])
            node, slow_one = it.seat.node, it.below.links[0]._transport
            assert node.downstream is not None
            assert slow_one is not None
            slow_one.pause_reading()
            it.up.send(OPEN, *(segment(n, node=n) for n in range(count)))
            await until(lambda: node.downstream and node.downstream.congested)
            it.up.send(segment(count, node=count))
            await until(lambda: node.scheduler.waiting)
            await asyncio.sleep(0.1)
            assert node.scheduler.waiting  # it computes nothing that it could not pass on
            slow_one.resume_reading()
            await until(lambda: len(it.below.of(m.Segment)) == count + 1)
            passed = [x.seq for x in it.below.of(m.Segment) if isinstance(x, m.Segment)]
            assert passed == list(range(count + 1))
            assert (it.above.errors, it.below.errors) == ([], [])

    run(scenario)


def test_word_of_a_loss_goes_both_ways() -> None:
    async def scenario() -> None:
        async with between() as it:
            lost, failed = r.Lost(1, 9, 3, 5, "it went silent"), r.Failed(1, 9, 3, "why")
            it.up.send(lost, failed)
            below = it.below.links[0]
            waiting = r.Waiting(3, 0, "stage 3 is waiting")
            below.send(lost, failed, waiting)
            await until(lambda: it.below.of(r.Failed) and it.above.of(r.Waiting))
            assert it.below.messages == [lost, failed]
            assert it.above.messages == [lost, failed, waiting]

    run(scenario)


def test_it_outlives_the_stage_before_it() -> None:
    async def scenario() -> None:
        async with between() as it:
            it.up.send(OPEN, segment(4))
            await until(lambda: it.below.of(m.Segment))
            await it.up.abort("as if killed")
            await until(lambda: it.below.of(m.Close))
            (lost,) = it.below.of(r.Lost)
            assert isinstance(lost, r.Lost)
            assert (lost.stage, lost.request, lost.seq) == (1, 9, 4)
            assert lost.why == "the connection broke"
            assert it.seat.node.scheduler.requests == ()
            it.below.messages.clear()
            it.up = await it.dial()
            it.up.send(OPEN, segment())
            await until(lambda: it.below.of(m.Segment))

    run(scenario)


def test_it_outlives_the_stage_after_it() -> None:
    async def scenario() -> None:
        async with between() as it:
            it.up.send(OPEN, segment(4))
            await until(lambda: it.below.of(m.Segment))
            await it.below.links.pop().abort("as if killed")
            await until(lambda: it.above.of(r.Lost))
            (lost,) = it.above.of(r.Lost)
            assert isinstance(lost, r.Lost)
            assert (lost.stage, lost.request, lost.seq) == (3, 9, 4)
            await until(lambda: it.below.links and it.seat.node.downstream)
            # What the holder sent before it knew is let go of: the new stage never heard of 9.
            it.below.messages.clear()
            it.up.send(segment(5, node=1), m.Advance(9, (0,), 1), m.Close(9), m.Open(10, 1, 64))
            it.up.send(segment(0, request=10))
            await until(lambda: it.below.of(m.Segment))
            assert [type(x) for x in it.below.messages] == [m.Close, m.Open, m.Segment]
            assert (it.above.errors, it.below.errors) == ([], [])

    run(scenario)


def test_a_request_that_comes_after_the_loss_is_given_up() -> None:
    """The holder has sent it before it heard of the loss."""

    async def scenario() -> None:
        async with ring(3, start=False) as made:
            it = Between(made, made.start(2))
            async with it.listening():
                it.up = await it.dial()
                await until(lambda: it.below.links and it.seat.node.downstream)
            await until(lambda: it.above.of(r.Lost))
            it.up.send(OPEN, segment(0))
            await until(lambda: len(it.above.of(r.Lost)) == 2)
            first, second = it.above.of(r.Lost)
            assert isinstance(first, r.Lost)
            assert (first.stage, first.request) == (3, 0)
            assert second == msgspec.structs.replace(first, request=9)
            it.below.links.clear()
            async with it.listening():
                await until(lambda: it.below.links and it.seat.node.downstream)
                it.up.send(segment(1, node=1), m.Advance(9, (0,), 1), m.Close(9), m.Open(10, 1, 64))
                it.up.send(segment(0, request=10))
                await until(lambda: it.below.of(m.Segment))
                assert [type(x) for x in it.below.messages] == [m.Close, m.Open, m.Segment]
                assert it.above.errors == []
                await it.up.close("the test is over")

    run(scenario)


def test_a_request_before_the_next_stage_was_there_is_given_up() -> None:
    async def scenario() -> None:
        async with ring(3, start=False) as made:
            it = Between(made, made.start(2))
            up = await it.dial()
            up.send(OPEN)
            await until(lambda: it.above.messages)
            assert it.above.messages == [r.Lost(3, 9, -1, 0, "it was not there yet")]
            assert it.seat.node.scheduler.requests == ()
            await up.close("the test is over")

    run(scenario)


def test_a_pass_that_fails_is_told_both_ways_and_survived() -> None:
    def fail() -> None:
        raise RuntimeError("no kernel for this")

    async def scenario() -> None:
        async with between() as it:
            it.stage.trouble = fail
            it.up.send(OPEN, segment(4))
            await until(lambda: it.below.of(r.Failed) and it.above.of(r.Failed))
            told = r.Failed(2, 9, 4, "RuntimeError: no kernel for this")
            assert (it.above.messages, it.below.messages) == ([told], [OPEN, told])
            line = f"segment 4 of request 9 could not be computed: {told.why}"
            assert line in it.seat.said
            it.stage.trouble = lambda: None
            it.up.send(segment(5, node=1), m.Close(9), OPEN, segment(0))
            await until(lambda: it.below.of(m.Segment))
            assert it.above.errors == []

    run(scenario)


def test_a_flood_is_cut_off_and_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST_SEGMENTS", 20)

    async def scenario() -> None:
        async with between() as it:
            it.stage.trouble = slow(0.3)
            it.up.send(OPEN, *(segment(n, node=n) for n in range(60)))
            await until(lambda: it.above.errors)
            assert "20 segments of request 9 wait: that is more than any window" in str(
                it.above.errors[0]
            )
            assert any("broke the protocol" in line for line in it.seat.said)
            it.stage.trouble = lambda: None
            it.up = await it.dial()
            it.below.messages.clear()
            it.up.send(m.Open(10, 1, 64), segment(0, request=10))
            await until(lambda: it.below.of(m.Segment))

    run(scenario)


def test_one_request_too_many_fails_and_nothing_else() -> None:
    async def scenario() -> None:
        async with between() as it:
            most = room.MOST_REQUESTS
            it.up.send(*(m.Open(n, 1, 64) for n in range(most + 1)))
            await until(lambda: it.above.of(r.Failed) and it.below.of(r.Failed))
            (report,) = it.above.of(r.Failed)
            assert isinstance(report, r.Failed)
            assert (report.request, report.seq) == (most, 0)
            assert report.why == "256 requests run and 0 are kept, which is the most"
            assert f"request {most} was refused: {report.why}" in it.seat.said
            # What follows of it is ignored; then another one may come.
            it.up.send(segment(request=most), m.Advance(most, (), 0), m.Close(most), m.Close(0))
            it.up.send(m.Open(most + 1, 1, 64))
            await until(lambda: m.Open(most + 1, 1, 64) in it.below.messages)
            assert m.Open(most, 1, 64) not in it.below.messages
            assert it.above.errors == []

    run(scenario)


def test_garbage_at_its_port_disturbs_nothing() -> None:
    async def scenario() -> None:
        async with between() as it:
            it.stage.trouble = slow(0.02)
            it.up.send(OPEN)
            for number in range(10):
                with socket.create_connection(it.made.address(2)) as sock:
                    sock.sendall(os.urandom(64) if number % 2 else b"\xff" * 64)
                    it.up.send(segment(number, node=number))
                    await asyncio.sleep(0.005)
            await until(lambda: len(it.below.of(m.Segment)) == 10)
            assert (it.above.errors, it.below.errors) == ([], [])

    run(scenario)


def test_only_one_may_stand_before_it() -> None:
    async def scenario() -> None:
        async with between() as it:
            with pytest.raises(PeerLost, match=r"already serves stage 1 at .*wait until it has"):
                await dial(
                    it.made.address(2),
                    card(1, 3),
                    Ear(),
                    admit=lambda peer: None,
                    patience=0.0,
                    waiting=lambda why: None,
                )

    run(scenario)


def test_what_makes_no_sense_ends_the_link() -> None:
    async def scenario() -> None:
        async with between() as it:
            it.up.send(m.Verdict(1, 1, (), (), ()))
            await until(lambda: it.above.errors)
            assert "stage 2 has no use for Verdict" in str(it.above.errors[0])
            it.up = await it.dial()
            it.up.send(segment())
            await until(lambda: len(it.above.errors) == 2)
            assert "a segment of request 9, which is not open" in str(it.above.errors[1])
            it.up = await it.dial()

    run(scenario)


def test_it_gives_up_on_the_next_stage_with_a_sentence() -> None:
    async def scenario() -> None:
        async with ring(2, start=False) as made:
            seat = made.start(1)
            seat.node._patience = 0.1
            with pytest.raises(PeerLost, match=r"gave up on stage 2 at .* after 0.1 s: connection"):
                await seat.task
            in_use = pytest.raises(UserError, match="is in use: stop what listens there")
            with socket.create_server(made.address(2)), in_use:
                await made.start(2).task

    run(scenario)
