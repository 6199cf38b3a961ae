"""Every end of a link has a sentence for its owner, one for the holder, and one for the peer."""

import pytest

from gardener.errors import PeerLost, RemoteError
from gardener.protocol import parting
from gardener.protocol.messages import Bye
from gardener.protocol.parting import Parting

PEER = "stage 2 at oak:7000"

PARTINGS = {
    "closed": (
        parting.closed_by_us(PEER, "done", politely=True),
        (f"we closed the link to {PEER}: done", "", "done"),
    ),
    "aborted": (
        parting.closed_by_us(PEER, "done", politely=False),
        (f"we closed the link to {PEER}: done", "", None),
    ),
    "pushed out": (
        parting.pushed_out(PEER),
        (f"{PEER}: the greeting was pushed out by newer ones", "", None),
    ),
    "overdue": (parting.overdue(PEER, "too late"), (f"{PEER}: too late", "", "too late")),
    "refused": (
        parting.refused(PEER, "who are you?\x1b"),
        (f"we refused {PEER}: who are you??", "", "who are you??"),
    ),
    "refused us": (
        parting.left(PEER, Bye("no"), was_open=False),
        (f"{PEER} refused the link: no", "it refused the link: no", None),
    ),
    "left": (
        parting.left(PEER, Bye("good night\n"), was_open=True),
        (f"{PEER} left: good night", "it left: good night", None),
    ),
    "breach": (
        parting.breach(PEER, RemoteError("a frame of length zero")),
        (
            f"{PEER} broke the protocol: a frame of length zero",
            "it broke the protocol: a frame of length zero",
            "a frame of length zero",
        ),
    ),
    "silent": (
        parting.silent(PEER, 4.04),
        (f"{PEER} went silent, last heard 4.0 s ago", "it went silent", None),
    ),
    "unread": (
        parting.unread(PEER, 300),
        (
            f"{PEER} does not read what it is sent: it left 300 bytes unread",
            "it left 300 bytes unread",
            None,
        ),
    ),
    "closed without a word": (
        parting.broken(PEER, None, 0.2, 0.0),
        (
            f"{PEER} closed the connection without saying why, last heard 0.2 s ago",
            "the connection broke",
            None,
        ),
    ),
    "broken": (
        parting.broken(PEER, "connection reset by peer", 0.2, 0.0),
        (
            f"the connection to {PEER} broke (connection reset by peer), last heard 0.2 s ago",
            "the connection broke",
            None,
        ),
    ),
    "stood still": (
        parting.broken(PEER, "connection reset by peer", 0.2, 9.6),
        (
            f"this process stood still for 10 s, and the connection to {PEER} broke "
            "(connection reset by peer), last heard 0.2 s ago",
            "the connection broke",
            None,
        ),
    ),
}


@pytest.mark.parametrize(("why", "said"), PARTINGS.values(), ids=PARTINGS)
def test_what_is_said_of_an_end(why: Parting, said: tuple[str, str, str | None]) -> None:
    assert (str(why.error), why.cause, why.bye and why.bye.why) == said


def test_only_a_breach_is_the_fault_of_the_peer() -> None:
    blamed = {name for name, (why, _) in PARTINGS.items() if isinstance(why.error, RemoteError)}
    assert blamed == {"breach"}
    assert all(isinstance(why.error, PeerLost | RemoteError) for why, _ in PARTINGS.values())


def test_who_stood_still_says_for_how_long() -> None:
    assert PARTINGS["stood still"][0].stood_still == 9.6


def test_a_bye_fits_into_its_message() -> None:
    bye = parting.closed_by_us(PEER, "x" * 1000, politely=True).bye
    assert bye is not None
    assert len(bye.why) == 512
