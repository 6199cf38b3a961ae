"""The metrics of a node that works, as they come over HTTP."""

import asyncio
import socket
import urllib.request

import pytest
from loopback import card, holding, ring, run, until, write
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gardener.errors import UserError
from gardener.metrics.endpoint import MOST, node_metrics
from gardener.metrics.node import NodeCollector
from gardener.net.address import Address
from gardener.stages.phases import Phases

Values = dict[tuple[str, ...], float]


def parsed(text: str) -> Values:
    """Sample name and label values -> value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(address: Address) -> Values:
    def get() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
            assert response.headers["content-type"].startswith("text/plain")
            return str(response.read().decode())

    return parsed(await asyncio.to_thread(get))


def test_a_node_tells_what_it_did() -> None:
    async def scenario() -> None:
        async with ring(2) as made:
            seat = made.seats[2]
            with node_metrics("0", Phases(2)) as (collector, address):
                assert address.host == "127.0.0.1"
                before = await scraped(address)
                assert before["gardener_node_ready", "2"] == 0
                assert ("gardener_node_rows_total", "2") not in before
                collector.begin(seat.node)
                async with holding(made, keep=True) as holder:
                    await write(holder)
                    await until(made.quiet)
                    values = await scraped(address)
                    totals = seat.node.scheduler.totals
                    rows = sum(sum(each) for each in seat.stage.passes)
                    assert values["gardener_node_ready", "2"] == 1
                    assert values["gardener_node_rows_total", "2"] == rows == totals.rows
                    assert values["gardener_node_forwards_total", "2"] == len(seat.stage.passes)
                    assert values["gardener_node_compute_seconds_total", "2"] == totals.seconds > 0
                    assert values["gardener_node_layers", "2"] == 1
                    assert values["gardener_node_requests", "2", "running"] == 0
                    assert values["gardener_node_requests", "2", "kept"] == 1
                    assert values["gardener_node_kv_slots_used", "2"] > 0
                    assert values["gardener_node_peer_up", "0", "downstream", "2"] == 1
                    assert values["gardener_node_peer_up", "1", "upstream", "2"] == 1
                    took = values["gardener_node_link_bytes_total", "received", "upstream", "2"]
                    assert took > 0
                    if ("process_cpu_seconds_total",) in values:  # where there is /proc
                        assert values["process_resident_memory_bytes",] > 0
                await until(lambda: seat.node.downstream is None)
                gone = await scraped(address)
                assert gone["gardener_node_peer_up", "0", "downstream", "2"] == 0
                sent = ("gardener_node_link_bytes_total", "sent", "downstream", "2")
                assert gone[sent] >= values[sent] > 0, "it counts on over links that ended"

    run(scenario)


def test_a_node_counts_rows_that_died_and_what_it_has_room_for() -> None:
    async def scenario() -> None:
        async with ring(1, start=False) as made:
            seat = made.start(1, replace(card(1, 1), kv_slot=2, kv_room=2000))
            registry = CollectorRegistry()
            collector = NodeCollector(registry, Phases(1))
            collector.begin(seat.node)
            seat.node.scheduler.totals.dropped += 3
            found = {m.name: m.samples[0].value for m in collector.collect() if m.samples}
            assert found["gardener_node_kv_slots"] == 1000
            assert found["gardener_node_rows_dropped"] == 3

    run(scenario)


def test_slow_clients_hold_nobody_up_for_ever() -> None:
    async def scenario() -> None:
        with node_metrics("127.0.0.1:0", Phases(1)) as (_, address):
            idle = [socket.create_connection(address) for _ in range(MOST)]
            try:
                await until(lambda: _refused(address))
            finally:
                for each in idle:
                    each.close()
            async with asyncio.timeout(10):
                while True:
                    try:
                        assert (await scraped(address))["gardener_node_ready", "1"] == 0
                        return
                    except OSError:
                        await asyncio.sleep(0.05)

    run(scenario)


def _refused(address: Address) -> bool:
    """Whether one more connection is closed at once."""
    with socket.create_connection(address) as extra:
        extra.settimeout(0.2)
        try:
            return extra.recv(1) == b""
        except TimeoutError:
            return False


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("fd:3", "write HOST:PORT, or PORT"),
        ("nonsense", "is not an address"),
        ("192.0.2.1:9", "cannot listen on 192.0.2.1:9 for --metrics: "),
        ("99999", "ports end at 65535"),
    ],
)
def test_a_wrong_address_is_told(where: str, why: str) -> None:
    async def scenario() -> None:
        with pytest.raises(UserError, match=why), node_metrics(where, Phases(1)):
            pass

    run(scenario)


def test_a_port_that_is_taken_is_told() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"{taken.getsockname()[1]}"
            with pytest.raises(UserError, match="in use"), node_metrics(where, Phases(1)):
                pass

    run(scenario)
