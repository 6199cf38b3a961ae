"""Segments that wait at a stage, in the order in which they came."""

from collections import deque
from dataclasses import dataclass

from gardener.errors import RemoteError
from gardener.protocol.messages import Segment
from gardener.stages.request import Request
from gardener.stages.segments import tensor_bytes

MOST_SEGMENTS = 256
"""If more segments wait at one stage, the holder does not keep to its window."""

MOST_BYTES = 2**30
"""Most bytes of hidden states and features in the segments that wait."""


@dataclass(frozen=True, slots=True)
class WaitingSegment:
    """A segment, its request, and since when it waits."""

    request: Request
    segment: Segment
    since: float


class SegmentQueue:
    """First in, first out. Its length and the bytes in it are bounded."""

    def __init__(self) -> None:
        self._waiting: deque[WaitingSegment] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def check_room(self) -> None:
        """Raise RemoteError if nothing more may wait."""
        if len(self) >= MOST_SEGMENTS or self._bytes >= MOST_BYTES:
            raise RemoteError(f"{len(self)} segments of {self._bytes} bytes wait: that is too much")

    def append(self, waiting: WaitingSegment) -> None:
        self._waiting.append(waiting)
        self._bytes += tensor_bytes(waiting.segment)

    def pop(self) -> WaitingSegment:
        """The segment that has waited longest."""
        waiting = self._waiting.popleft()
        self._bytes -= tensor_bytes(waiting.segment)
        return waiting

    def put_back(self, waiting: WaitingSegment) -> None:
        """Undo the last `pop`."""
        self._waiting.appendleft(waiting)
        self._bytes += tensor_bytes(waiting.segment)

    def drop_ended(self) -> None:
        """Forget the segments that no longer count."""
        ended = [waiting for waiting in self._waiting if not waiting.request.is_live]
        if ended:
            self._bytes -= sum(tensor_bytes(waiting.segment) for waiting in ended)
            self._waiting = deque(each for each in self._waiting if each.request.is_live)
