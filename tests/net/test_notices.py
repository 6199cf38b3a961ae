"""What is told of a wait: what is in the way now, and nothing else."""

import asyncio
import itertools
import socket

import loopback
import msgspec
import pytest
import simulated
from loopback import Ear, holding, ring, run, truth, until, write
from processes import free_ports

from gardener.cli.view.node_watch import NodeWatch
from gardener.errors import PeerLost, UserError
from gardener.holder import ring as ring_module
from gardener.holder.holder import Holder
from gardener.net.address import Address
from gardener.net.listen import listen
from gardener.net.notices import AGAIN, KEPT, KNOCKS, Notices, Strangers
from gardener.stages.phases import Phases


async def refused(holder: Holder) -> str:
    """Why the ring did not close."""
    try:
        with pytest.raises((PeerLost, UserError)) as caught:
            await holder.connect()
        return str(caught.value)
    finally:
        await holder.close()


# --- one reason after another --------------------------------------------------------------------


def told(*reasons: tuple[float, str], forget: float | None = None) -> list[str]:
    """What is said of notices, each given some seconds after the one before."""
    said: list[str] = []

    async def scenario() -> None:
        those = Notices(said.append)
        for pause, reason in reasons:
            await asyncio.sleep(pause)
            if forget is not None and asyncio.get_running_loop().time() >= forget:
                those.forget()
            those.tell(reason)

    simulated.run(scenario)
    return said


def test_a_reason_that_lasts_is_told_once() -> None:
    assert told(*[(1.0, "refused")] * 100) == ["refused"]


def test_a_reason_that_comes_back_is_told_again() -> None:
    later = AGAIN + 1
    assert told((1, "refused"), (later, "overlap"), (1, "refused")) == [
        *("refused", "overlap", "refused"),
    ]


def test_one_that_comes_back_soon_is_told_if_it_lasts() -> None:
    seen = [(1.0, "refused"), (1.0, "overlap"), (1.0, "refused")]
    assert told(*seen) == ["refused", "overlap"]
    assert told(*seen, *[(1.0, "refused")] * 10) == ["refused", "overlap", "refused"]


def test_reasons_that_take_turns_do_not_flood() -> None:
    said = told(*zip([1.0] * 600, itertools.cycle("ab")))
    assert 8 <= len(said) <= 16  # not the 600 times in ten minutes that they were seen


def test_reasons_that_a_peer_makes_up_are_not_kept_for_ever() -> None:
    async def scenario() -> None:
        those = Notices(lambda reason: None)
        for number in range(1000):
            those.tell(str(number))
        assert len(those._quiet) <= KEPT

    simulated.run(scenario)


def test_after_the_wait_the_same_reason_is_news() -> None:
    assert told((1, "refused"), (1, "refused"), forget=2.0) == ["refused", "refused"]


# --- in a ring -----------------------------------------------------------------------------------


def test_a_stage_that_is_gone_does_not_overlap_any_more() -> None:
    """Stage 1 saw first that nothing listened there, and was refused afterwards."""

    async def scenario() -> None:
        async with ring(2, start=False) as made:
            first = made.start(1)
            await until(lambda: any("connection refused" in line for line in first.said))
            made.start(2, msgspec.structs.replace(loopback.card(2, 2), first=0))
            assert "they overlap" in await refused(made.holder(patience=1.0))
            await made.end(2)
            for _ in range(2):
                made.said.clear()
                said = await refused(made.holder(patience=1.0))
                assert "stage 1 is waiting for stage 2 at " in said
                assert "connection refused" in said
                assert len(made.said) == 1
                assert made.said[0] in said

    run(scenario)


def test_what_nobody_mentions_any_more_is_not_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "STALE", 0.5)

    async def scenario() -> None:
        async with ring(2, start=False) as made:
            made.start(1)
            waiting = asyncio.create_task(refused(made.holder(patience=2.5)))
            await until(lambda: any("stage 1 is waiting for stage 2" in s for s in made.said))
            ear = Ear()  # takes all that comes and lets nothing go on
            listener = await listen(
                made.address(2),
                loopback.card(2, 2),
                ear,
                admit=lambda peer: None,
                met=ear.links.append,
            )
            assert (await waiting).endswith(" 2.5 s: nothing was heard of the last stage")
            await listener.close()
            await ear.links[0].close("the test is over")

    run(scenario)


def test_a_stage_that_does_not_answer_is_told_before_its_time_is_up() -> None:
    async def scenario() -> None:
        async with ring(2, start=False) as made:
            with socket.create_server(made.address(2)):  # takes the connection and says nothing
                made.start(1)
                said = await refused(made.holder(patience=1.5))
            assert said.endswith(
                f"stage 1 is waiting for stage 2 at {made.address(2)}: no answer yet"
            )

    run(scenario)


def test_a_healthy_ring_waits_for_nothing() -> None:
    async def scenario() -> None:
        async with ring(2) as made:
            await until(lambda: all(seat.node.ready for seat in made.seats.values()))
            for _ in range(3):
                await asyncio.sleep(0.3)  # the last stage looks for the holder meanwhile
                async with holding(made) as holder:
                    assert await write(holder) == truth()
            assert made.said == []
            assert not any("refused" in line for line in made.seats[2].said)

    run(scenario)


def test_that_the_last_stage_misses_the_holder_is_told_if_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ring_module, "ASK", 0.05)

    async def scenario(lasts: float) -> tuple[list[str], list[str]]:
        for module in ("stages.node", "holder.ring"):
            monkeypatch.setattr(f"gardener.{module}.LASTS", lasts)
        async with ring(2) as made:
            await until(lambda: all(seat.node.ready for seat in made.seats.values()))
            made.ports[0] = free_ports(1)[0]  # where the last stage does not look
            await refused(made.holder(patience=0.6))
            return made.said, [line for line in made.seats[2].said if "waiting" in line]

    async def both() -> None:
        assert await scenario(5.0) == ([], [])
        by_holder, by_node = await scenario(0.2)
        assert ["stage 2 is waiting for the holder at" in line for line in by_holder] == [True]
        assert ["waiting for the holder at" in line for line in by_node] == [True]

    run(both)


def test_a_second_asker_learns_that_the_ring_serves_somebody_else() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            served = (
                "the ring serves somebody else at the moment: stage 1 already serves the holder at "
            )
            way_out = ": wait until it has ended, or end it"
            said = await refused(made.holder())
            assert said.startswith(f"{made.address(0)} is in use, for {served}")
            assert said.endswith(way_out)
            elsewhere = Address("127.0.0.1", free_ports(1)[0])
            made.said.clear()
            said = await refused(made.holder(patience=0.3, listen_at=elsewhere))
            assert said.startswith(f"the ring did not close within 0.3 s: {served}")
            assert said.endswith(way_out)
            assert len(made.said) == 1
            assert made.said[0].startswith(served)
            assert await write(holder) == truth()

    run(scenario)


def test_a_port_that_something_else_has_may_be_changed_at_both_ends() -> None:
    async def scenario() -> None:
        async with ring(1) as made:
            with socket.create_server(made.address(0)):
                assert await refused(made.holder()) == (
                    f"{made.address(0)} is in use, where the last stage dials this holder: stop "
                    "what listens there, or start both anew, with another --listen here and that "
                    "as the last stage's --peer"
                )

    run(scenario)


def test_a_peer_that_is_not_stage_1() -> None:
    async def scenario() -> None:
        async with ring(3) as made:
            await until(lambda: all(seat.node.ready for seat in made.seats.values()))
            wrong = "the holder's --peer must be stage 1, but stage {} answers there"
            said = await refused(made.holder(patience=0.3, peer=made.address(2)))
            assert said.endswith(wrong.format(2) + "; stage 1 is on 127.0.0.1")
            said = await refused(made.holder(patience=0.3, peer=made.address(3)))
            assert said.endswith(wrong.format(3))

    run(scenario)


# --- ready ---------------------------------------------------------------------------------------


def test_a_stage_says_when_it_is_ready_and_when_it_is_so_again() -> None:
    async def scenario() -> None:
        async with ring(3, start=False) as made:
            views = {n: NodeWatch(Phases(n), "cpu", "here", "there") for n in (1, 2, 3)}

            def start(number: int) -> None:
                views[number].begin(made.start(number).node)

            def states() -> list[tuple[str, bool]]:
                return [(p.state, p.ready) for p in (views[n].status(1.0) for n in (1, 2, 3))]

            def lines(number: int) -> list[str]:
                return [line for line in made.seats[number].said if line.startswith("ready")]

            for number in (1, 2):
                start(number)
            await until(lambda: made.seats[2].node.upstream and made.seats[1].node.downstream)
            assert lines(1) == ["ready: stage 2 is there; a holder may ask"]
            assert lines(2) == []
            start(3)
            await until(lambda: made.seats[2].node.ready and made.seats[3].node.ready)
            ready = ("ready", True)
            assert states() == [ready] * 3
            at = f"the holder is to listen at {made.address(0)}"
            assert lines(2) == ["ready: stage 1 and stage 3 are there"]
            assert lines(3) == [f"ready: stage 2 is there; {at}"]
            async with holding(made) as holder:  # comes and goes
                assert await write(holder) == truth()
            await made.kill(2)
            await until(lambda: not made.seats[1].node.ready and not made.seats[3].node.ready)
            assert [states()[0], states()[2]] == [
                ("waiting for the stage after", False),
                ("waiting for the stage before", False),
            ]
            start(2)
            await until(lambda: made.seats[2].node.ready and made.seats[1].node.ready)
            assert [len(lines(number)) for number in (1, 2, 3)] == [2, 1, 2]

    run(scenario)


def test_a_ring_of_one_stage_is_ready_at_once() -> None:
    async def scenario() -> None:
        async with ring(1) as made:
            said = made.seats[1].said
            await until(lambda: len(said) > 1)
            assert (
                said[1] == f"ready: a holder may ask; the holder is to listen at {made.address(0)}"
            )

    run(scenario)


def test_strangers_are_told_whatever_their_ports_but_not_again_and_again() -> None:
    async def scenario() -> list[str]:
        told: list[str] = []
        strangers = Strangers(told.append)
        for attempt in range(100):
            strangers.tell(f"we refused the peer at 10.0.0.3:{50_000 + attempt}: it is late")
            strangers.tell(f"the peer at [fe80::3]:{50_000 + attempt} speaks TLS")
            await asyncio.sleep(0.25)
        return told

    told = simulated.run(scenario)
    assert told[:2] == [
        "we refused the peer at 10.0.0.3: it is late",
        "the peer at [fe80::3] speaks TLS",
    ]
    assert set(told) == set(told[:2])
    assert len(told) <= 6


def test_a_stranger_in_many_shapes_is_told_now_and_then() -> None:
    async def scenario() -> int:
        told: list[str] = []
        strangers = Strangers(told.append)
        for attempt in range(1000):
            strangers.tell(f"the peer at 10.0.0.3:50000 begins with {attempt}")
            await asyncio.sleep(0.01)
        return len(told)

    assert 2 <= simulated.run(scenario) <= 10 / KNOCKS + 1
