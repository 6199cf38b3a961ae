"""A spare: whom it steps in for, and that answers go on with it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from loopback import FakeStage, Ring, card, holding, ring, run, slow, truth, until, write
from processes import free_ports

from gardener.net.address import Address
from gardener.net.listen import refuse_all
from gardener.net.spares import Spares, parse_spares
from gardener.protocol.messages import Card
from gardener.runtime.trace import Trace
from gardener.runtime.worker import Worker
from gardener.stages.node import StageNode
from gardener.stages.phases import Phases
from gardener.stages.settings import NodeSettings
from gardener.stages.sight import UNKNOWN
from gardener.stages.spare import StandBy

ONE, TWO = Address("10.0.0.8", 7000), Address("10.0.0.9", 7000)


def test_spares_are_asked_one_after_the_other() -> None:
    spares = parse_spares("10.0.0.8:7000, 10.0.0.9:7000", 5.0)
    assert spares == Spares((ONE, TWO), 5.0)
    assert [spares.due(seconds) for seconds in (0.0, 4.9)] == [(), ()]
    assert [spares.due(seconds) for seconds in (5.0, 9.9)] == [(ONE,), (ONE,)]
    assert [spares.due(seconds) for seconds in (10.0, 99.0)] == [(ONE, TWO), (ONE, TWO)]
    assert parse_spares("", 5.0).due(99.0) == ()


def settings(listen: str = "127.0.0.1:7000") -> NodeSettings:
    return NodeSettings(
        0, "", listen, "a model", None, 9, None, "float32", "cpu", 1, "none", 60.0, spare=1
    )


def missed(stage: int = 2, peer: str = "127.0.0.1:7003") -> Card:
    return msgspec.structs.replace(card(stage, 3), peer=peer, dtype="bfloat16", longest=512)


def test_it_becomes_the_stage_that_is_missed() -> None:
    async def scenario() -> None:
        phases = Phases(0, spare=1)
        by = StandBy(settings(), phases)
        assert phases.refusal(card(1, 3)) == "spare 1 stands by for a stage that stays away"
        assert by.asked(card(1, 3), missed()) == "spare 1 steps in the place of stage 2"
        place = await by.place()
        assert (place.stage, place.layers, place.stages) == (2, "1-1", None)
        assert (place.peer, place.dtype, place.quant) == ("127.0.0.1:7003", "bfloat16", "none")
        assert (place.context, place.model) == (512, "a model")
        assert phases.who == "stage 2"
        assert by.asked(card(2, 3), missed(3)) == "stage 2 steps in the place of stage 2"

    run(scenario)


@pytest.mark.parametrize(
    ("asker", "whom", "listen", "why"),
    [
        (2, missed(), "127.0.0.1:7000", "stage 2 does not stand before it"),
        (1, missed(peer=""), "127.0.0.1:7000", "it is not known where it dialled the next stage"),
        (1, missed(), "10.0.0.9:7000", "it dialled 127.0.0.1:7003, which only its own machine can"),
    ],
)
def test_whom_it_does_not_step_in_for(asker: int, whom: Card, listen: str, why: str) -> None:
    async def scenario() -> None:
        phases = Phases(0, spare=1)
        by = StandBy(settings(listen), phases)
        said = by.asked(card(asker, 3), whom)
        assert said.startswith(f"spare 1 cannot step in the place of stage 2: {why}")
        assert phases.doing == "stands by for a stage that stays away"

    run(scenario)


@contextmanager
def spares_at(made: Ring, port: int) -> Iterator[Spares]:
    """All nodes of the ring know of the spare there."""
    spares = Spares((Address("127.0.0.1", port),), after=0.5)
    for seat in made.seats.values():
        seat.node.neighbours._spares = spares
    yield spares


async def stand_by(made: Ring, port: int, said: list[str]) -> None:
    """As `gardener-node --spare 1`, but for what it computes."""
    phases = Phases(0, spare=1)
    by = StandBy(settings(f"127.0.0.1:{port}"), phases)
    place = Address("127.0.0.1", port)
    nobody = card(0, made.stages)
    listener = await refuse_all(place, nobody, phases.refusal, UNKNOWN.sight, None, by.asked)
    worker = Worker("spare")
    try:
        chosen = await by.place()
        said.append(f"{chosen.stage} {chosen.layers}")
        node = StageNode(
            FakeStage(chosen.stage, made.stages),
            card(chosen.stage, made.stages),
            worker,
            Trace(),
            listen_at=listener,
            peer=Address("127.0.0.1", int(chosen.peer.rpartition(":")[2])),
            patience=20.0,
            say=said.append,
        )
        await node.run()
    finally:
        await listener.close()
        worker.close()


@pytest.mark.parametrize("victim", [1, 2, 3])
def test_answers_go_on_with_a_spare(victim: int) -> None:
    async def scenario() -> None:
        news: list[str] = []
        said: list[str] = []
        (port,) = free_ports(1)
        async with ring(3) as made:
            with spares_at(made, port) as spares:
                options = {"patience_lost": 20.0, "news": news.append, "spares": spares}
                async with holding(made, **options) as holder:
                    spare = asyncio.create_task(stand_by(made, port, said))
                    for seat in made.seats.values():
                        seat.stage.trouble = slow(0.003)

                    async def strike(so_far: list[int]) -> None:
                        if len(so_far) >= 8 and victim in made.seats:
                            await made.kill(victim)

                    assert await write(holder, 40, each=strike) == truth(40)
                    assert said[0] == f"{victim} {victim - 1}-{victim - 1}"
                    late = made.start(victim)  # the stage comes back, and is not needed
                    await until(lambda: late.said)
                    assert await write(holder) == truth()
                    spare.cancel()
                    await asyncio.wait([spare])

    run(scenario)
