"""A short run of the fuzzer (`benchmarks/fuzz`): a link, a real ring and a real server bear
whatever comes. The same seed sends the same."""

import uvloop
from loopback import run
from served import served
from sockets import listening_to

from benchmarks.fuzz.frames import samples
from benchmarks.fuzz.http import Requests
from benchmarks.fuzz.ports import Ports
from benchmarks.fuzz.pure import Pure
from benchmarks.fuzz.ring import ring
from benchmarks.fuzz.tally import shape
from gardener.protocol.messages import MESSAGES


class Server:
    """Where one is asked."""

    def __init__(self, port: int) -> None:
        self.port = port


def test_every_message_is_spoilt() -> None:
    assert {type(sample) for sample in samples()} == set(MESSAGES)


def test_a_link_bears_spoilt_frames_and_a_seed_repeats_itself() -> None:
    once, again = Pure(5).run(3_000), Pure(5).run(3_000)
    assert not once.faults
    assert once.heard == again.heard
    assert len(once.heard) > 80  # it comes to many places
    assert sum(count for said, count in once.heard.items() if said.startswith("heard ")) > 50


def test_a_ring_bears_spoilt_frames() -> None:
    async def scenario() -> None:
        async with ring() as made:
            ports = Ports(made, 5)
            await ports.begin()
            await ports.streams(80)
            await ports.meddle(3)
            assert not ports.tally.faults, ports.tally.faults[0]
            assert len(ports.tally.heard) > 15

    uvloop.run(scenario())


def test_a_server_bears_spoilt_requests() -> None:
    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            tally = await Requests(Server(port), 5).run(300)
            assert not tally.faults, tally.faults[0]
            assert tally.heard["# an answer"] > 20
            assert len(tally.heard) > 30

    run(scenario)


def test_sentences_are_told_apart_without_their_figures() -> None:
    assert shape("stage 2 at 10.0.0.2:7 broke the protocol: row 3 comes twice") == (
        "row # comes twice"
    )
