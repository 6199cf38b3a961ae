"""A spare: whom it steps in for, and that answers go on with it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny
from loopback import Ear, FakeStage, Ring, card, holding, ring, run, slow, truth, until, write
from processes import free_ports

from gardener.errors import PeerLost, UserError
from gardener.holder import ring as holder_ring
from gardener.net import dial
from gardener.net.address import Address
from gardener.net.link import Link
from gardener.net.listen import refuse_all
from gardener.net.spares import Spares
from gardener.protocol.messages import Card
from gardener.runtime.trace import Trace
from gardener.runtime.worker import Worker
from gardener.stages import turn
from gardener.stages.node import StageNode
from gardener.stages.phases import Phase, Phases
from gardener.stages.serve import serve
from gardener.stages.settings import NodeSettings
from gardener.stages.sight import UNKNOWN
from gardener.stages.spare import StandBy


def settings(listen: str = "127.0.0.1:7000") -> NodeSettings:
    return NodeSettings(
        0, "", listen, "a model", None, 9, None, "float32", "cpu", 1, "none", 60.0, spare=1
    )


def missed(stage: int = 2, peer: str = "127.0.0.1:7003", **other: Any) -> Card:
    shown = {"peer": peer, "dtype": "bfloat16", "longest": 512, **other}
    return msgspec.structs.replace(card(stage, 3), **shown)


def asker(stage: int = 1) -> Card:
    return msgspec.structs.replace(card(stage, 3), dtype="bfloat16")


def test_it_becomes_the_stage_that_is_missed() -> None:
    async def scenario() -> None:
        phases = Phases(0, spare=1)
        by = StandBy(settings(), phases)
        assert phases.refusal(card(1, 3)) == "spare 1 stands by for a stage that stays away"
        assert by.asked(asker(), missed()) == "spare 1 steps in the place of stage 2"
        place = await by.place()
        assert (place.stage, place.layers, place.stages) == (2, "1-1", None)
        assert (place.peer, place.dtype, place.quant) == ("127.0.0.1:7003", "bfloat16", "none")
        assert (place.context, place.model) == (512, "a model")
        assert place.quant_head == "auto"  # the card said none
        assert phases.who == "stage 2"
        doing = "spare 1 steps in the place of stage 2: it is "
        assert by.asked(asker(2), missed(3)) == doing + "starting"
        phases.begin(Phase.LOADING)
        assert by.asked(asker(), missed()) == doing + "loading its weights"
        phases.begin(Phase.SERVING)
        assert by.asked(asker(), missed()) == doing + "about to serve"

    run(scenario)


@pytest.mark.parametrize(
    ("stage", "whom", "listen", "why"),
    [
        (2, missed(), "127.0.0.1:7000", "stage 2 does not stand before it"),
        (1, missed(peer=""), "127.0.0.1:7000", "it is not known where it dialled the next stage"),
        (1, missed(), "10.0.0.9:7000", "it dialled 127.0.0.1:7003, which only its own machine can"),
        (
            1,
            missed(peer="10.9.9.9:7003"),
            "127.0.0.1:7000",
            "it dialled 10.9.9.9:7003, which is not known to be this machine, and without keys "
            "links stay within this one: start the spare with --keys DIR",
        ),
        (
            1,
            missed(dtype="rub\nbish"),
            "127.0.0.1:7000",
            "its dtype is 'rub bish', and not one of float32, bfloat16, float16",
        ),
        (1, missed(quant="int3"), "127.0.0.1:7000", "its quant is 'int3', and not one of none, "),
        (1, missed(head_quant="x"), "127.0.0.1:7000", "its head_quant is 'x', and not one of auto"),
        (1, missed(end=1), "127.0.0.1:7000", "its card names no layers"),
        (1, missed(first=2, end=3), "127.0.0.1:7000", "stage 2 holds layer 2 but stage 1 ends at"),
    ],
)
def test_whom_it_does_not_step_in_for(stage: int, whom: Card, listen: str, why: str) -> None:
    async def scenario() -> None:
        phases = Phases(0, spare=1)
        by = StandBy(settings(listen), phases)
        said = by.asked(asker(stage), whom)
        assert said.startswith(f"spare 1 cannot step in the place of stage 2: {why}")
        assert phases.doing == "stands by for a stage that stays away"
        assert " steps in " in by.asked(asker(), missed(peer="localhost:1")) or listen[:3] == "10."

    run(scenario)


@pytest.mark.parametrize("how", [{"keys": Path("keys")}, {"insecure": True}])
def test_links_with_keys_or_without_fear_may_leave_the_machine(how: dict[str, Any]) -> None:
    async def scenario() -> None:
        by = StandBy(replace(settings(), **how), Phases(0, spare=1))
        said = by.asked(asker(), missed(peer="10.9.9.9:7003"))
        assert said == "spare 1 steps in the place of stage 2"

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
            stepped_in=True,
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


@asynccontextmanager
async def doubled(stages: int = 3) -> AsyncIterator[tuple[Ring, Address]]:
    """A ring and the place of a spare that stage 1 knows, and asks for stage 2 after a second."""
    async with ring(stages, start=False) as made:
        place = Address("127.0.0.1", free_ports(1)[0])
        made.start(1, spares=Spares((place,), 1.0))
        for number in range(2, stages + 1):
            made.start(number)
        yield made, place


def where(link: Link | None) -> str:
    return "" if link is None else link.where


def blip(node: StageNode) -> None:
    """Its link to the next peer breaks."""
    assert node.downstream is not None
    assert node.downstream._transport is not None
    node.downstream._transport.abort()


def lets_go(stage: int) -> str:
    return f"nobody stands before stage {stage}: the link is free for another"


def test_a_spare_lets_go_when_the_stage_before_it_has_the_old_one_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stage came back while the spare served; then the link to the spare breaks once."""
    monkeypatch.setattr(turn, "YIELD", 0.3)

    async def scenario() -> None:
        async with doubled() as (made, place), holding(made, patience_lost=20.0) as holder:
            await made.kill(2)
            spare = made.start(2, seat=22, listen_at=place, stepped_in=True)
            await until(lambda: not holder.stands)
            await until(lambda: holder.stands)
            first, third = (made.seats[number].node for number in (1, 3))
            assert where(first.downstream) == str(place)
            assert spare.said[1].startswith("waiting for stage 1, and then for stage 3 at ")
            late = made.start(2)
            await until(lambda: "stage 3 already serves stage 2" in "".join(late.said))
            blip(first)
            await until(lambda: not holder.stands)
            await until(lambda: holder.stands)
            assert where(first.downstream) == str(made.address(2))
            assert late.node.downstream is not None
            assert third.upstream is not None
            assert lets_go(2) in "".join(spare.said)
            assert spare.node.downstream is None
            assert f"it left: {lets_go(2)}" not in "".join(made.said)
            assert await write(holder) == truth()

    run(scenario)


def test_a_spare_that_nobody_dials_takes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It loaded for too long, and the stage had come back; later that ends again."""
    monkeypatch.setattr(turn, "YIELD", 0.3)

    async def scenario() -> None:
        async with doubled() as (made, place), holding(made, patience_lost=20.0) as holder:
            spare = made.start(2, seat=22, listen_at=place, stepped_in=True)
            await until(lambda: len(spare.said) == 2)
            await made.kill(2)
            await until(lambda: not holder.stands)
            made.start(2)
            await until(lambda: holder.stands)
            assert where(made.seats[1].node.downstream) == str(made.address(2))
            assert spare.node.downstream is None
            assert len(spare.said) == 2
            assert await write(holder) == truth()

    run(scenario)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_stage_whose_place_is_taken_waits_until_it_is_dialled(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the next one from whoever serves as soon as that link broke."""
    monkeypatch.setattr(turn, "YIELD", 0.3)

    async def scenario() -> None:
        async with doubled() as (made, _), holding(made, patience_lost=20.0) as holder:
            place = Address("127.0.0.1", free_ports(1)[0])
            second = made.start(number, seat=22, listen_at=place)
            before = f"stage {number - 1}" if number > 1 else "a holder"
            after = f"stage {number + 1}" if number < 3 else "the holder"
            waits = f"waiting for {before}, and then for {after} at "
            await until(lambda: second.said and second.said[-1].startswith(waits))
            blip(made.seats[number].node)
            await until(lambda: not holder.stands)
            await until(lambda: holder.stands)
            assert second.node.downstream is None
            assert second.said[-1].startswith(waits)

    run(scenario)


def test_stages_that_have_let_go_link_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage 1 stays away; each stage after it lets go, and the ring closes when it comes back."""
    monkeypatch.setattr(turn, "YIELD", 0.1)

    async def scenario() -> None:
        news: list[str] = []
        options = {"patience_lost": 20.0, "news": news.append}
        async with ring(5) as made, holding(made, **options) as holder:
            assert await write(holder) == truth()
            await made.kill(1)
            last = made.seats[5].node
            await until(lambda: last.downstream is None and last.upstream is None)
            for number in range(2, 6):
                assert lets_go(number) in "".join(made.seats[number].said)
            back = made.start(1)
            await until(lambda: back.node.upstream)
            monkeypatch.setattr(dial, "FIRST_DELAY", 60.0)  # from here on nobody waits
            monkeypatch.setattr(holder_ring, "ASK", 60.0)
            await until(lambda: holder.stands)
            assert await write(holder) == truth()
            for stage in range(2, 5):  # they were not lost
                assert f"stage {stage} was lost" not in "".join(news + made.said)
            for number in range(2, 6):
                said = made.seats[number].said
                assert sum(line.startswith("ready: ") for line in said) == 2  # and once again

    run(scenario)


def test_a_spare_whose_model_lacks_the_layers_ends_with_a_sentence(tmp_path: Path) -> None:
    tiny.make("llama", tmp_path / "model")

    async def scenario() -> None:
        port, nobody = free_ports(2)
        lacked = missed(first=90, end=92, layers=99, dtype="float32")
        mine = replace(settings(f"127.0.0.1:{port}"), model=str(tmp_path / "model"))
        said: list[str] = []
        serving = asyncio.create_task(serve(mine, said.append))
        await until(lambda: "stands by for a stage that stays away" in said)
        with pytest.raises(PeerLost, match=r"the spare at .*: refused the link: spare 1 steps in"):
            await dial.dial(
                Address("127.0.0.1", nobody),
                msgspec.structs.replace(card(1, 99), end=90),
                Ear(),
                admit=lambda peer: None,
                patience=0.0,
                waiting=lambda why: None,
                spares=Spares((Address("127.0.0.1", port),), 0.0, lacked),
            )
        with pytest.raises(UserError, match=r"^there is no layer 91: the model has layers 0-"):
            await serving

    run(scenario)


def test_a_stage_that_the_next_one_still_has_goes_on_dialling() -> None:
    """The next one has not noticed yet that the link has ended."""

    async def scenario() -> None:
        async with ring(3) as made:
            await until(lambda: all(seat.node.ready for seat in made.seats.values()))
            first, second = (made.seats[number].node for number in (1, 2))
            second.lost = lambda link, error: None  # type: ignore[method-assign]
            blip(first)
            await until(lambda: "stage 2 already serves stage 1" in "".join(made.seats[1].said))
            second.neighbours.upstream = None
            await until(lambda: first.ready)

    run(scenario)
