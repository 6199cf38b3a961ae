"""Segments that wait: their order, and the sum of their bytes."""

import pytest
from loopback import column

from gardener.errors import RemoteError, StageFailed
from gardener.protocol.messages import Open, Segment
from gardener.stages import queue
from gardener.stages.queue import SegmentQueue, WaitingSegment
from gardener.stages.request import Request


def waiting(request: Request, seq: int) -> WaitingSegment:
    """A segment with one row of four bytes."""
    segment = Segment(request.number, seq, (0,), (-1,), (0,), (7,), column([1.0]), ())
    return WaitingSegment(request, segment, 0.0)


def test_the_sum_of_bytes_follows_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    each = 4 + 2 * queue.ROW_BYTES
    monkeypatch.setattr(queue, "MOST_BYTES", 3 * each)
    one, two = Request(Open(1, 1, 64)), Request(Open(2, 1, 64))
    segments = SegmentQueue()
    for seq, request in enumerate((one, two, one)):
        segments.check_room(request)
        segments.append(waiting(request, seq))
    with pytest.raises(StageFailed, match=r"3 segments of 0\.00148 MiB wait here"):
        segments.check_room(two)
    first = segments.pop()
    segments.check_room(two)
    segments.put_back(first)
    with pytest.raises(StageFailed, match=r"3 segments of 0\.00148 MiB wait here"):
        segments.check_room(two)
    one.end()
    segments.drop_ended()
    segments.check_room(two)
    assert (len(segments), segments.pop().segment.seq, len(segments)) == (1, 1, 0)
    monkeypatch.setattr(queue, "MOST_BYTES", 1)
    segments.check_room(two)


def test_the_segments_of_each_request_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST_SEGMENTS", 2)
    requests = [Request(Open(number, 1, 64)) for number in range(5)]
    segments = SegmentQueue()
    for seq in range(2):
        for request in requests:
            segments.check_room(request)
            segments.append(waiting(request, seq))
    with pytest.raises(RemoteError, match="2 segments of request 3 wait: that is more than any"):
        segments.check_room(requests[3])
    first = segments.pop()
    segments.check_room(requests[0])
    segments.put_back(first)
    with pytest.raises(RemoteError, match="2 segments of request 0 wait"):
        segments.check_room(requests[0])
    for request in requests[1:]:
        request.end()
    segments.drop_ended()
    segments.check_room(requests[3])
    assert len(segments) == 2
    for _ in range(2):
        segments.pop()
    assert not segments._counts, "of a request that has gone nothing is left"


def test_a_request_with_the_same_number_is_another_request() -> None:
    old, new = Request(Open(1, 1, 64)), Request(Open(1, 1, 64))
    segments = SegmentQueue()
    segments.append(waiting(old, 0))
    segments.append(waiting(new, 1))
    old.end()
    segments.drop_ended()
    assert [segments.pop().segment.seq for _ in range(len(segments))] == [1]
    assert (old.is_live, new.is_live) == (False, True)
