"""Two ends of a link, without a socket or a loop, on a clock that the test holds."""

from collections.abc import Callable

import pytest

from gardener.errors import LocalError, PeerLost, RemoteError
from gardener.protocol import messages as m
from gardener.protocol import reports as r
from gardener.protocol.connection import BACKLOG, Answered, Connection, LinkEvent, Opened, Times
from gardener.protocol.link_state import End
from gardener.protocol.wire import Decoder, encode

TIMES = Times(heartbeat=0.5, silence=4.0, greeting=5.0, linger=1.0)
FOREVER = float("inf")


def card(stage: int) -> m.Card:
    return m.Card(stage, f"oak{stage}", "0.1.0", 0, 4, 8, 16, "model", "float32", "none", 0)


def anyone(_: m.Card) -> str | None:
    return None


def nobody(peer: m.Card) -> str | None:
    return f"stage {peer.stage} is early"


class Pair:
    """Stage 1, upstream, and stage 2, downstream. What one says reaches the other at once."""

    def __init__(
        self,
        above: Callable[[m.Card], str | None] = anyone,
        below: Callable[[m.Card], str | None] = anyone,
    ) -> None:
        self.up = Connection(End.UPSTREAM, card(1), above, TIMES)
        self.down = Connection(End.DOWNSTREAM, card(2), below, TIMES)
        self.events: list[tuple[End, LinkEvent]] = []
        for end, where in ((self.down, "elm:7001"), (self.up, "oak:7002")):
            end.begin(where, 0.0)

    def exchange(self, now: float) -> None:
        """Until neither has anything more to say."""
        while (above := self.up.outgoing()) or (below := self.down.outgoing()):
            if above:
                self.events += [(End.DOWNSTREAM, event) for event in self.down.receive(above, now)]
            else:
                self.events += [(End.UPSTREAM, event) for event in self.up.receive(below, now)]

    def heard(self, end: End) -> list[LinkEvent]:
        return [event for at, event in self.events if at is end]


def opened(now: float = 0.0) -> Pair:
    pair = Pair()
    pair.exchange(now)
    pair.events.clear()
    return pair


def said(end: Connection) -> list[m.Message]:
    return list(Decoder().feed(end.outgoing()))


def why(end: Connection) -> str:
    assert end.parting is not None
    return str(end.parting.error)


# --- greeting ------------------------------------------------------------------------------------


def test_both_ends_open_and_know_each_other() -> None:
    pair = Pair()
    assert str(pair.up) == "the peer at oak:7002"
    pair.exchange(0.010)
    assert pair.heard(End.UPSTREAM)[0] == pair.heard(End.DOWNSTREAM)[0] == Opened()
    assert (pair.up.peer, pair.down.peer) == (card(2), card(1))
    assert pair.up.is_open
    assert pair.down.is_open
    assert (str(pair.up), str(pair.down)) == ("stage 2 at oak:7002", "stage 1 at elm:7001")


def test_a_refusal_is_known_at_both_ends() -> None:
    pair = Pair(below=nobody)
    pair.exchange(0.0)
    assert pair.events == []
    assert why(pair.down) == "we refused stage 1 at elm:7001: stage 1 is early"
    assert why(pair.up) == "the peer at oak:7002 refused the link: stage 1 is early"
    pair = Pair(above=nobody)
    pair.exchange(0.0)
    assert pair.events == []
    assert why(pair.up) == "we refused stage 2 at oak:7002: stage 2 is early"
    assert why(pair.down) == "stage 1 at elm:7001 refused the link: stage 2 is early"


def test_the_owner_may_refuse_a_link_as_late_as_when_it_opens() -> None:
    pair = Pair()
    list(pair.down.receive(pair.up.outgoing(), 0.0))
    list(pair.up.receive(pair.down.outgoing(), 0.0))
    for event in pair.down.receive(pair.up.outgoing(), 0.0):
        assert event == Opened()
        pair.down.refuse(RemoteError("somebody was quicker"), 0.0)
        break
    assert not pair.down.is_open
    assert said(pair.down) == [m.Bye("somebody was quicker")]


def test_a_greeting_is_overdue_to_the_millisecond() -> None:
    end = Connection(End.DOWNSTREAM, card(2), anyone, TIMES)
    assert end.due == FOREVER
    end.begin("elm:7001", 10.0)
    assert end.due == 15.0
    end.wake(14.999)
    assert end.parting is None
    end.wake(15.0)
    assert why(end) == "the peer at elm:7001: the greeting was not finished within 5 s"
    assert said(end) == [m.Bye("the greeting was not finished within 5 s")]


def test_before_the_greeting_frames_are_small() -> None:
    end = Connection(End.DOWNSTREAM, card(2), anyone, TIMES)
    end.begin("elm:7001", 0.0)
    assert list(end.receive((2**14 + 1).to_bytes(4, "big"), 0.0)) == []
    assert "a frame of 16385 bytes, the limit is 16384" in why(end)


def test_one_that_is_pushed_out_before_it_began_says_nothing() -> None:
    end = Connection(End.DOWNSTREAM, card(2), anyone, TIMES)
    end.push_out(0.0)
    assert (end.outgoing(), end.lingers, end.due) == (b"", False, FOREVER)
    assert "an unknown address: the greeting was pushed out" in why(end)


# --- work and heartbeat --------------------------------------------------------------------------


def test_messages_arrive_in_order_however_the_bytes_are_cut() -> None:
    pair = opened()
    sent: list[m.Message] = [m.Open(1, 4, 9), m.Advance(1, (3,), 4), m.Close(1)]
    pair.up.send(*sent)
    data = pair.up.outgoing()
    events = [event for byte in data for event in pair.down.receive(bytes([byte]), 0.0)]
    assert events == sent


def test_an_end_may_not_say_everything_and_says_nothing_of_it_then() -> None:
    pair = opened()
    with pytest.raises(LocalError, match="the downstream end said Close"):
        pair.down.send(r.Lost(1, 1, 1, 1, "why"), m.Close(1))
    assert pair.down.outgoing() == b""


def test_a_ping_is_answered_and_timed() -> None:
    pair = opened()
    stamp = pair.up.ping(100, 1.0)
    data = pair.up.outgoing()
    assert len(data) > 100
    assert list(pair.down.receive(data, 1.125)) == []
    assert list(pair.up.receive(pair.down.outgoing(), 1.25)) == [Answered(stamp, 0.25)]


def test_it_beats_when_it_is_woken_and_not_before() -> None:
    pair = opened()
    assert pair.up.due == 0.5
    pair.up.wake(0.499)
    assert pair.up.outgoing() == b""
    pair.up.wake(0.5)
    assert said(pair.up) == [m.Ping(500_000)]
    assert pair.up.due == 1.0


def test_a_silent_peer_is_lost_to_the_millisecond() -> None:
    pair = opened()
    for beat in range(1, 8):
        pair.up.wake(beat * 0.5)
    assert pair.up.due == 4.0
    pair.up.wake(3.999)
    assert pair.up.parting is None
    pair.up.wake(4.0)
    assert why(pair.up) == "stage 2 at oak:7002 went silent, last heard 4.0 s ago"
    assert pair.up.parting is not None
    assert pair.up.parting.cause == "it went silent"
    assert (pair.up.lingers, pair.up.due) == (False, FOREVER)


def test_a_part_of_a_frame_is_a_sign_of_life() -> None:
    pair = opened()
    for beat in range(1, 20):
        assert list(pair.up.receive(b"\0" if beat == 1 else b"", beat * 0.5)) == []
        pair.up.wake(beat * 0.5)
    assert pair.up.parting is None


def test_a_peer_that_leaves_too_much_unread_is_lost() -> None:
    pair = opened()
    pair.up.unsent(BACKLOG, 1.0)
    assert pair.up.parting is None
    pair.up.unsent(BACKLOG + 1, 1.0)
    assert f"it left {BACKLOG + 1} bytes unread" in why(pair.up)
    assert not pair.up.lingers


# --- parting -------------------------------------------------------------------------------------


def test_who_leaves_lingers_until_its_time_is_up() -> None:
    pair = opened()
    pair.down.leave("good night", 2.0)
    assert pair.down.lingers
    assert pair.down.due == 3.0
    pair.down.wake(2.999)
    assert pair.down.lingers
    pair.down.wake(3.0)
    assert (pair.down.lingers, pair.down.due) == (False, FOREVER)


def test_who_hears_a_bye_is_done_at_once() -> None:
    pair = opened()
    pair.down.leave("good night", 2.0)
    pair.up.send(m.Close(1))  # on its way when the Bye comes
    crossed = pair.up.outgoing()
    pair.exchange(2.0)
    assert list(pair.down.receive(crossed, 2.0)) == []
    assert why(pair.up) == "stage 2 at oak:7002 left: good night"
    assert (pair.up.lingers, pair.up.due) == (False, FOREVER)
    assert pair.down.lingers  # until the peer has closed


def test_two_that_leave_at_once_need_not_wait_for_each_other() -> None:
    pair = opened()
    pair.up.leave("I go", 1.0)
    pair.down.leave("me too", 1.0)
    above, below = pair.up.outgoing(), pair.down.outgoing()
    assert list(pair.down.receive(above, 1.0)) == list(pair.up.receive(below, 1.0)) == []
    assert not pair.up.lingers
    assert not pair.down.lingers
    assert "we closed the link" in why(pair.up)


def test_nothing_that_comes_after_a_bye_counts() -> None:
    pair = opened()
    assert list(pair.down.receive(encode(m.Bye("enough")) + encode(m.Close(9)), 1.0)) == []
    assert why(pair.down) == "stage 1 at elm:7001 left: enough"
    assert pair.down.outgoing() == b""


def test_what_was_asked_for_last_wins_over_lingering() -> None:
    pair = opened()
    pair.down.leave("good night", 2.0)
    pair.down.drop("killed", 2.1)
    assert not pair.down.lingers
    assert why(pair.down).endswith("good night")  # the first reason is the one that counts


def test_a_breach_is_answered_with_a_bye_and_ends_the_link() -> None:
    pair = opened()
    data = encode(m.Close(1)) + b"\0\0\0\1\xc1" + encode(m.Close(2))
    assert list(pair.down.receive(data, 1.0)) == [m.Close(1)]
    assert isinstance(pair.down.parting and pair.down.parting.error, RemoteError)
    (bye,) = said(pair.down)
    assert isinstance(bye, m.Bye)
    assert "a frame is not msgpack" in bye.why
    assert list(pair.down.receive(encode(m.Close(3)), 1.1)) == []
    assert pair.down.lingers


def test_a_breach_that_the_owner_finds_ends_it_too() -> None:
    pair = opened()
    for event in pair.down.receive(encode(m.Close(7)) * 2, 1.0):
        assert event == m.Close(7)
        pair.down.refuse(RemoteError("no request has the number 7"), 1.0)
        break
    assert "broke the protocol: no request has the number 7" in why(pair.down)
    assert said(pair.down) == [m.Bye("no request has the number 7")]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (None, "stage 2 at oak:7002 closed the connection without saying why"),
        ("broken pipe", "the connection to stage 2 at oak:7002 broke (broken pipe)"),
    ],
)
def test_a_connection_that_is_gone(failure: str | None, reason: str) -> None:
    pair = opened()
    pair.up.lost(failure, 0.4)
    assert why(pair.up) == f"{reason}, last heard 0.4 s ago"
    assert isinstance(pair.up.parting and pair.up.parting.error, PeerLost)
    assert pair.up.due == FOREVER


def test_who_stood_still_says_so() -> None:
    pair = opened()
    pair.up.lost("connection reset by peer", 0.5 + 2.999)
    assert "stood still" not in why(pair.up)
    pair = opened()
    pair.up.lost("connection reset by peer", 0.5 + 3.0)
    assert why(pair.up).startswith("this process stood still for 3 s, and the connection to stage")
    assert pair.up.parting is not None
    assert pair.up.parting.stood_still == 3.0
