"""The heartbeat, on a clock that the test holds."""

import pytest

from gardener.protocol.heartbeat import AFTERMATH, ROUND_TRIPS, Heartbeat
from gardener.protocol.messages import Ping

INTERVAL, SILENCE = 0.5, 4.0


def beating(now: float = 0.0) -> Heartbeat:
    heartbeat = Heartbeat(INTERVAL, SILENCE)
    heartbeat.heard(now)
    heartbeat.start(now)
    return heartbeat


def test_it_does_not_beat_before_the_link_is_open() -> None:
    heartbeat = Heartbeat(INTERVAL, SILENCE)
    assert heartbeat.due == float("inf")
    heartbeat.start(10.0)
    assert heartbeat.due == 10.5


def test_every_beat_sends_a_ping_and_sets_the_next_one() -> None:
    heartbeat = beating()
    assert heartbeat.beat(0.5) == Ping(500_000)
    assert heartbeat.due == 1.0
    assert heartbeat.beat(1.125) == Ping(1_125_000)
    assert heartbeat.due == 1.625


def test_a_peer_is_lost_with_the_beat_that_completes_its_silence() -> None:
    heartbeat = beating()
    for count in range(1, 8):
        assert heartbeat.beat(count * INTERVAL) is not None
    assert heartbeat.beat(SILENCE) is None


def test_whatever_is_heard_begins_the_silence_anew() -> None:
    heartbeat = beating()
    for count in range(1, 8):
        heartbeat.beat(count * INTERVAL)
    heartbeat.heard(3.999)
    for count in range(8, 15):
        assert heartbeat.beat(count * INTERVAL) is not None
    assert heartbeat.beat(7.5) is None
    assert heartbeat.last_heard == 3.999


def test_what_anybody_may_have_sent_puts_silence_off_once() -> None:
    heartbeat = beating()
    for count in range(1, 15):
        heartbeat.stirred(count * INTERVAL - 0.1)
        assert heartbeat.beat(count * INTERVAL) is not None
    heartbeat.stirred(7.4)
    assert heartbeat.beat(7.5) is None
    assert heartbeat.last_heard == 0.0


def test_who_stood_still_does_not_blame_its_peer() -> None:
    heartbeat = beating()
    assert heartbeat.beat(60.0) is not None  # one beat went by here, whatever the clock says


def test_it_stood_still_if_a_beat_was_so_late_that_the_peer_may_have_given_up() -> None:
    late = SILENCE - 2 * INTERVAL
    assert beating().stood_still(INTERVAL + late - 0.001) == 0.0
    assert beating().stood_still(INTERVAL + late) == late


def test_standing_still_explains_what_breaks_shortly_afterwards() -> None:
    heartbeat = beating()
    heartbeat.beat(10.5)
    assert heartbeat.stood_still(10.5 + AFTERMATH) == 10.0
    assert heartbeat.stood_still(10.5 + AFTERMATH + 0.001) == 0.0


def test_the_round_trip_is_the_least_of_the_recent_ones() -> None:
    heartbeat = beating()
    assert heartbeat.round_trip is None
    for seconds in (0.003, 0.002, 0.004):
        ping = heartbeat.ping(1.0)
        assert heartbeat.answered(ping.stamp, 1.0 + seconds) == pytest.approx(seconds, abs=1e-5)
    assert heartbeat.round_trip == pytest.approx(0.002, abs=1e-5)
    for _ in range(ROUND_TRIPS):
        heartbeat.answered(heartbeat.ping(2.0).stamp, 2.5)
    assert heartbeat.round_trip == pytest.approx(0.5, abs=1e-4)


def test_stamps_are_never_used_twice() -> None:
    heartbeat = beating()
    assert [heartbeat.ping(now).stamp for now in (1.0, 1.0, 0.5)] == [10**6, 10**6 + 1, 10**6 + 2]


def test_a_padded_ping_is_timed_but_no_round_trip() -> None:
    heartbeat = beating()
    ping = heartbeat.ping(1.0, padding=1000)
    assert len(ping.padding) == 1000
    assert heartbeat.answered(ping.stamp, 1.25) == 0.25
    assert heartbeat.round_trip is None


@pytest.mark.parametrize("stamp", [0, 2**53], ids=["old", "of the future"])
def test_a_stamp_that_a_peer_makes_up_counts_for_nothing(stamp: int) -> None:
    heartbeat = beating()
    assert heartbeat.answered(stamp, 100.0) >= 0.0
    assert heartbeat.round_trip is None
