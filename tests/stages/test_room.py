"""How much requests may take of a stage: as its card says, and a request more is refused alone."""

import msgspec
import pytest
from loopback import card

from gardener.errors import StageFailed
from gardener.protocol.messages import Open
from gardener.stages.room import BOUNDLESS, MOST_REQUESTS, Room


def test_room_is_what_the_card_says() -> None:
    assert Room.of(card(1, 2)) == BOUNDLESS
    told = msgspec.structs.replace(card(1, 2), kv_slot=10, kv_room=6409, longest=99)
    assert Room.of(told) == Room(640, 99)


@pytest.mark.parametrize(
    ("room", "message", "used", "why"),
    [
        (Room(640), Open(1, 3, 128), 0, None),
        (Room(640), Open(1, 3, 129), 0, "memory for the keys and values of 640 tokens, 0 are set"),
        (Room(1280), Open(1, 3, 128), 640, None),
        (Room(1280), Open(1, 3, 128), 641, "640"),
        (Room(longest=128), Open(1, 3, 128), 10**6, None),
        (
            Room(longest=128),
            Open(1, 3, 129),
            0,
            r"takes requests of up to 128 tokens, .*\(--context\), and this one may have 129",
        ),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_the_reason(
    room: Room, message: Open, used: int, why: str | None
) -> None:
    if why is None:
        room.check(message, used, 3, 2)
        return
    with pytest.raises(StageFailed, match=why):
        room.check(message, used, 3, 2)


def test_there_are_only_so_many_requests() -> None:
    BOUNDLESS.check(Open(1, 3, 9), 0, MOST_REQUESTS - 1, 0)
    with pytest.raises(StageFailed, match="200 requests run and 56 are kept, which is the most"):
        BOUNDLESS.check(Open(1, 3, 9), 0, 200, MOST_REQUESTS - 200)
