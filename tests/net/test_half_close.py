"""A Bye arrives over a transport that cannot end one direction, as with TLS."""

import asyncio

import pytest
import simulated
from loopback import Ear, card, until

from gardener.net.dial import dial
from gardener.net.link import Link
from gardener.net.listen import listen
from gardener.protocol import reports as r
from gardener.protocol.connection import TIMES
from gardener.rings.simulate.network import SimulatedTransport


async def linked(above: Ear, below: Ear) -> tuple[Link, Link]:
    """Both ends of a link, upstream first."""
    listener = await listen(
        "simulated:7001", card(2, 2), below, admit=lambda _: None, met=below.links.append
    )
    up = await dial(
        listener.address,
        card(1, 2),
        above,
        admit=lambda _: None,
        patience=5.0,
        waiting=lambda _: None,
    )
    await until(lambda: below.links)
    await listener.close()
    return up, below.links[0]


@pytest.mark.parametrize("can", [True, False])
def test_a_bye_needs_no_half_close(monkeypatch: pytest.MonkeyPatch, can: bool) -> None:
    monkeypatch.setattr(SimulatedTransport, "can_write_eof", lambda _: can)

    async def scenario() -> None:
        above, below = Ear(), Ear()
        up, down = await linked(above, below)
        down.send(r.Lost(2, 1, 1, 1, "why"))
        begin = asyncio.get_running_loop().time()
        await down.close("good night")
        assert asyncio.get_running_loop().time() - begin < TIMES.linger / 10
        await until(lambda: above.errors)
        assert [type(message) for message in above.messages] == [r.Lost]
        assert str(above.errors[0]).endswith("left: good night")
        assert below.errors == []
        await up.close("done")

    simulated.run(scenario)


def test_two_that_leave_at_once_need_no_half_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedTransport, "can_write_eof", lambda _: False)

    async def scenario() -> None:
        above, below = Ear(), Ear()
        up, down = await linked(above, below)
        begin = asyncio.get_running_loop().time()
        await asyncio.gather(up.close("done"), down.close("done"))
        assert asyncio.get_running_loop().time() - begin < TIMES.linger / 10
        assert above.errors == below.errors == []

    simulated.run(scenario)


def test_a_peer_that_does_not_close_is_dropped_after_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SimulatedTransport, "can_write_eof", lambda _: False)

    async def scenario() -> None:
        above, below = Ear(), Ear()
        up, down = await linked(above, below)
        assert up._transport is not None
        up._transport.pause_reading()
        begin = asyncio.get_running_loop().time()
        await down.close("good night")
        assert asyncio.get_running_loop().time() - begin == pytest.approx(TIMES.linger)
        await up.abort("the test is over")

    simulated.run(scenario)
