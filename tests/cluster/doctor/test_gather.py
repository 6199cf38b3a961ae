"""A doctor that looks at real nodes on loopback, and at what may be in their place."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import minted
import pytest
from loopback import Ring, card, holding, ring, run, truth, until, write
from processes import free_ports

import gardener
from gardener.cluster.doctor.examine import examine
from gardener.cluster.doctor.finding import Finding, Severity, Subject, well
from gardener.cluster.doctor.gather import Wanted, of_cluster, of_peers
from gardener.cluster.doctor.seen import Seen
from gardener.cluster.places import Cluster, DraftPart, HolderPlace, SparePlace, StagePlace
from gardener.net.address import Address
from gardener.net.keys import read_keys
from gardener.net.listen import refuse_all
from gardener.net.spares import Spares
from gardener.protocol.messages import Card
from gardener.protocol.sight import Sight
from gardener.runtime.clock import wall_clock
from gardener.stages.phases import Phase, Phases

STAGES = 3


@pytest.fixture(autouse=True)
def of_this_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gardener, "__version__", card(1, 1).version)
    monkeypatch.setattr("gardener.net.look.STEP", 0.5)


def file(made: Ring) -> Cluster:
    """The file that describes this ring."""
    return Cluster(
        path=Path("/nowhere/cluster.toml"),
        name="home",
        model="no-such-model",
        revision=None,
        draft=DraftPart(),
        keys=None,
        insecure=False,
        holder=HolderPlace("127.0.0.1", made.ports[0]),
        stages=tuple(
            StagePlace("127.0.0.1", made.ports[n], number=n, layers=f"{n - 1}")
            for n in range(1, made.stages + 1)
        ),
    )


async def closed(made: Ring) -> None:
    """Wait until every stage has its next one."""
    stages = [seat for number, seat in made.seats.items() if number < made.stages]
    await until(lambda: all(seat.node.downstream for seat in stages))


async def looked(made: Ring) -> tuple[Seen, list[Finding]]:
    seen = await of_cluster(file(made), Wanted())
    return seen, examine(seen)


def test_all_is_well_and_found_from_the_first_stage_alone() -> None:
    async def scenario() -> None:
        async with ring(STAGES) as made:
            await closed(made)
            seen, findings = await looked(made)
            assert findings == []
            assert seen.unread == "no-such-model is not on this machine yet"
            assert all(each.here for each in seen.everybody)
            near = seen.stages[0].sight
            assert near is not None
            assert near.downstream is not None
            assert near.downstream.stage == 2
            followed = await of_peers([made.address(1)], Wanted())
            assert [each.number for each in followed.stages] == [1, 2, 3]
            assert followed.holder is not None
            assert followed.holder.target.address == made.address(0)
            assert examine(followed) == []

    run(scenario)


def test_a_ring_at_work_is_not_disturbed() -> None:
    """The text is the same, though somebody looks all the while, and who works is not measured."""

    async def scenario() -> None:
        async with ring(STAGES) as made, holding(made) as holder:
            seen: list[Seen] = []

            async def look_on(text: list[int]) -> None:
                if len(seen) < 3:
                    found, findings = await looked(made)
                    assert well(findings)
                    seen.append(found)

            assert await write(holder, each=look_on) == truth()
            assert len(seen) == 3
            working = [each.view for each in seen[0].stages]
            assert all(view and view.looked.sight.requests == 1 for view in working)
            assert [view and view.bandwidth for view in working] == [None] * STAGES
            holder_seen = seen[0].holder
            assert holder_seen is not None
            assert holder_seen.card is not None
            assert holder_seen.card.stage == 0

    run(scenario)


def test_a_stage_that_is_missing() -> None:
    async def scenario() -> None:
        async with ring(STAGES) as made:
            await closed(made)
            await made.end(2)
            _, (found,) = await looked(made)
            assert (found.subject, found.severity) == (Subject.REACH, Severity.WRONG)
            assert found.where == f"stage 2 at {made.address(2)}"
            assert found.command == "gardener-node --stage 2"

    run(scenario)


def test_a_spare_in_the_place_of_a_stage() -> None:
    """Also without a file: the stage before it has its link there."""

    async def scenario() -> None:
        (port,) = free_ports(1)
        spare = Address("127.0.0.1", port)
        async with ring(STAGES) as made:
            await closed(made)
            made.seats[1].node.neighbours._spares = Spares((spare,), after=0.0)
            await made.end(2)
            made.ports[2], own = port, made.ports[2]
            made.start(2)  # at the spare's address
            made.ports[2] = own
            await closed(made)
            described = replace(file(made), spares=(SparePlace("127.0.0.1", port, number=1),))
            findings = examine(await of_cluster(described, Wanted()))
            assert [each.severity for each in findings] == [Severity.WARNING]
            assert findings[0].sentence.startswith("spare 1 is this stage now")
            followed = await of_peers([made.address(1)], Wanted())
            assert [each.number for each in followed.stages] == [1, 2, 3]
            assert followed.stages[1].target.address == spare
            assert examine(followed) == []

    run(scenario)


def test_a_spare_that_stands_by_is_seen_through_its_keys(tmp_path: Path) -> None:
    """Its certificate is a spare's, and it is no stage yet."""
    folder = minted.made(tmp_path / "keys")

    async def scenario() -> None:
        async with ring(1, start=False) as made:
            phases = Phases(0, spare=1)
            phases.begin(Phase.STANDING_BY)
            listener = await refuse_all(
                made.address(1),
                Card(0, "oak", card(1, 1).version, 0, 0, 0, 0, "", "", "", 0),
                phases.refusal,
                lambda: Sight(wall_clock(), does=phases.doing),
                read_keys(folder, "spare-1", time.time()),
            )
            spare = SparePlace("127.0.0.1", made.ports[1], number=1)
            stages = (StagePlace("127.0.0.1", free_ports(1)[0], number=1),)
            described = replace(file(made), keys=folder, stages=stages, spares=(spare,))
            try:
                seen = await of_cluster(described, Wanted())
            finally:
                await listener.close()
            assert seen.spares[0].view is not None
            assert str(seen.spares[0].view.identity) == "spare-1 of cluster oak"
            assert [each.where for each in examine(seen)] == [str(seen.stages[0])]

    run(scenario)


def test_a_stage_that_loads() -> None:
    async def scenario() -> None:
        async with ring(STAGES) as made:
            await made.end(3)
            early = Card(3, "oak3", card(1, 1).version, 0, 0, 0, 0, "", "", "", 0)
            does = "is loading its weights, 34 %"
            listener = await refuse_all(
                made.address(3),
                early,
                lambda _: f"stage 3 {does}",
                lambda: Sight(wall_clock(), does=does),
            )
            try:
                _, findings = await looked(made)
            finally:
                await listener.close()
            assert findings[0].severity is Severity.WAIT
            assert findings[0].sentence == f"it {does}: wait, and look again"
            assert not well(findings)

    run(scenario)


@contextlib.asynccontextmanager
async def web_server(port: int) -> AsyncIterator[None]:
    """It answers HTTP at once, whatever it hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    serving = list[asyncio.Task[None] | None]()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        await asyncio.gather(*filter(None, serving))


def test_an_http_server_in_the_place_of_a_stage() -> None:
    async def scenario() -> None:
        async with ring(STAGES) as made:
            await closed(made)
            await made.end(3)
            async with web_server(made.ports[3]):
                _, (found,) = await looked(made)
            assert found.subject is Subject.STRANGER
            assert found.sentence.startswith("an HTTP server listens there")

    run(scenario)


def test_a_stage_of_another_version_or_with_other_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with ring(STAGES) as made:
            await closed(made)
            monkeypatch.setattr(gardener, "__version__", "9.9")
            _, findings = await looked(made)
            assert [each.subject for each in findings] == [Subject.VERSION] * STAGES
            assert findings[0].command == "pip install 'gardener-node==9.9'"
            monkeypatch.undo()
            monkeypatch.setattr(gardener, "__version__", card(1, 1).version)
            cluster = file(made)
            two = replace(cluster.stages[1], layers="1-2")
            other = replace(cluster, stages=(cluster.stages[0], two, cluster.stages[2]))
            (found,) = examine(await of_cluster(other, Wanted()))
            assert found.subject is Subject.PLACE
            assert found.sentence.startswith("it holds layers 1, and the file says 1-2")

    run(scenario)


def test_stages_that_the_file_has_the_wrong_way_round() -> None:
    async def scenario() -> None:
        async with ring(STAGES) as made:
            await closed(made)
            cluster = file(made)
            one, two, three = cluster.stages
            swapped = (one, replace(two, port=three.port), replace(three, port=two.port))
            findings = examine(await of_cluster(replace(cluster, stages=swapped), Wanted()))
            assert findings[0].subject is Subject.PLACE
            assert "stage 3 answers there, and it should be stage 2" in findings[0].sentence

    run(scenario)


def test_a_port_of_the_holder_that_is_taken() -> None:
    async def scenario() -> None:
        async with ring(STAGES) as made:
            await closed(made)
            async with web_server(made.ports[0]):
                seen, (found,) = await looked(made)
            assert found.subject is Subject.HOLDER
            assert f"{made.address(0)} is in use" in seen.taken

    run(scenario)
