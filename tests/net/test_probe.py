"""What a link finds out about itself."""

import asyncio
import gc
from collections.abc import Callable
from typing import cast

import pytest
from loopback import Ear, card, run, until

from gardener.errors import PeerLost
from gardener.net.dial import dial
from gardener.net.link import Link
from gardener.net.listen import listen
from gardener.net.neighbours import Neighbours
from gardener.net.probe import PATIENCE, PROBES, SIZES, measure_link
from gardener.protocol.cards import with_link


class FakeLink:
    """Answers pings after the time that its delay and its bandwidth make, on its own clock."""

    def __init__(self, delay: float, bandwidth: float) -> None:
        self.bandwidth: float | None = None
        self.round_trip: float | None = None
        self.asked: list[int] = []
        self._delay, self._true = delay, bandwidth

    async def ping(self, padding: int = 0) -> float:
        self.asked.append(padding)
        if not padding:
            self.round_trip = 2 * self._delay
        return 2 * self._delay + padding / self._true


def measured(link: FakeLink) -> FakeLink:
    asyncio.run(measure_link(cast(Link, link)))
    return link


@pytest.mark.parametrize("bandwidth", [1e6, 1e8, 1e10])
def test_a_link_learns_its_delay_and_bandwidth(bandwidth: float) -> None:
    link = measured(FakeLink(0.01, bandwidth))
    assert link.bandwidth == pytest.approx(bandwidth, rel=1e-3)
    shown = with_link(card(1, 2), link.round_trip, link.bandwidth)
    assert shown.delay == 10_000
    assert shown.bandwidth == pytest.approx(bandwidth, rel=1e-3)


def test_a_slow_link_is_not_given_more_than_it_takes_to_tell() -> None:
    assert measured(FakeLink(0.01, 1e6)).asked == [*[0] * PROBES, *[SIZES[0]] * PROBES]
    assert measured(FakeLink(0.01, 1e9)).asked[-1] == SIZES[1]


def test_a_link_on_which_bytes_take_no_time_has_no_bandwidth_to_tell() -> None:
    link = measured(FakeLink(0.01, float("inf")))
    assert link.bandwidth is None
    assert with_link(card(1, 2), link.round_trip, link.bandwidth).bandwidth == 0


def test_a_link_that_ends_meanwhile_is_left_at_that() -> None:
    class Ending(FakeLink):
        async def ping(self, padding: int = 0) -> float:
            if padding:
                raise PeerLost("gone")
            return await super().ping(padding)

    link = measured(Ending(0.01, 1e9))
    assert (link.round_trip, link.bandwidth) == (0.02, None)


def test_a_peer_that_does_not_answer_is_waited_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Deaf(FakeLink):
        async def ping(self, padding: int = 0) -> float:
            await asyncio.sleep(60)
            return 0.0

    assert PATIENCE < 1
    monkeypatch.setattr("gardener.net.probe.PATIENCE", 0.01)
    assert measured(Deaf(0.0, 1.0)).bandwidth is None


def test_without_a_link_a_card_stays_as_it_is() -> None:
    assert Neighbours(card(1, 2), Ear()).card == card(1, 2)


def with_links(scenario: Callable[[Link, Link], object]) -> None:
    """Two ends of a real link, which was dialled. Nothing may be left behind."""

    async def main() -> None:
        below, above = Ear(), Ear()
        met: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        listener = await listen(
            "127.0.0.1:0", card(2, 2), below, admit=lambda _: None, met=met.set_result
        )
        up = await dial(
            listener.address, card(1, 2), above, admit=lambda _: None, patience=10.0, waiting=print
        )
        down = await met
        await cast("asyncio.Future[None]", scenario(up, down))
        await up.close("done")
        await down.close("done")
        await listener.close()

    run(main)


def test_a_link_that_was_dialled_is_measured() -> None:
    async def scenario(up: Link, down: Link) -> None:
        assert up.round_trip is not None
        assert up.received_bytes < 10_000  # the padding goes one way only
        assert up.sent_bytes > PROBES * SIZES[0]

    with_links(scenario)


def test_a_ping_fails_when_the_link_ends() -> None:
    async def scenario(up: Link, down: Link) -> None:
        waiting = asyncio.ensure_future(up.ping(1000))
        await asyncio.sleep(0)
        await up.abort("enough")
        with pytest.raises(PeerLost, match="enough"):
            await waiting

    with_links(scenario)


def test_a_ping_on_a_connection_that_is_closing_leaves_nothing_behind() -> None:
    async def scenario(up: Link, down: Link) -> None:
        assert up._transport is not None
        up._transport.close()
        with pytest.raises(PeerLost, match="is closed"):
            await up.ping()
        await until(lambda: up.ended)
        gc.collect()  # an error that nobody looked at is reported when its future goes

    with_links(scenario)


def test_padding_does_not_count_as_round_trip() -> None:
    async def scenario(up: Link, down: Link) -> None:
        before = list(up.core.heartbeat.round_trips)
        await up.ping(1000)
        assert list(up.core.heartbeat.round_trips) == before
        await up.ping()
        assert len(up.core.heartbeat.round_trips) == len(before) + 1

    with_links(scenario)
