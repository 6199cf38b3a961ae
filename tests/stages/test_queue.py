"""Segments that wait: their order, and the sum of their bytes."""

import pytest
from loopback import column

from gardener.errors import RemoteError
from gardener.protocol.messages import Open, Segment
from gardener.stages import queue
from gardener.stages.queue import SegmentQueue, WaitingSegment
from gardener.stages.request import Request


def waiting(request: Request, seq: int) -> WaitingSegment:
    """A segment with one row of four bytes."""
    segment = Segment(request.number, seq, (0,), (-1,), (0,), (7,), column([1.0]), ())
    return WaitingSegment(request, segment, 0.0)


def test_the_sum_of_bytes_follows_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST_BYTES", 12)
    one, two = Request(Open(1, 1, 64)), Request(Open(2, 1, 64))
    segments = SegmentQueue()
    for seq, request in enumerate((one, two, one)):
        segments.check_room()
        segments.append(waiting(request, seq))
    with pytest.raises(RemoteError, match="3 segments of 12 bytes wait"):
        segments.check_room()
    first = segments.pop()
    segments.check_room()
    segments.put_back(first)
    with pytest.raises(RemoteError, match="3 segments of 12 bytes wait"):
        segments.check_room()
    one.end()
    segments.drop_ended()
    segments.check_room()
    assert (len(segments), segments.pop().segment.seq, len(segments)) == (1, 1, 0)
    monkeypatch.setattr(queue, "MOST_BYTES", 1)
    segments.check_room()


def test_a_request_with_the_same_number_is_another_request() -> None:
    old, new = Request(Open(1, 1, 64)), Request(Open(1, 1, 64))
    segments = SegmentQueue()
    segments.append(waiting(old, 0))
    segments.append(waiting(new, 1))
    old.end()
    segments.drop_ended()
    assert [segments.pop().segment.seq for _ in range(len(segments))] == [1]
    assert (old.is_live, new.is_live) == (False, True)
