"""Segments that wait at a stage, in the order in which they came."""

from collections import Counter, deque
from dataclasses import dataclass

from gardener.errors import RemoteError, StageFailed
from gardener.protocol.messages import Segment
from gardener.stages.request import Request
from gardener.stages.segments import tensor_bytes

MOST_SEGMENTS = 1024
"""If more segments of one request wait at one stage, its holder does not keep to its window: that
is at most 64 where it is given, and else as many segments as fit into one round."""

MOST_BYTES = 2**30
"""If the segments that wait take more bytes, no more are taken in. Many requests that keep to their
windows can come to this behind a stage that stands still."""

ROW_BYTES = 256
"""What Python takes for the numbers of a row, and for a segment without any."""


@dataclass(frozen=True, slots=True)
class WaitingSegment:
    """A segment, its request, and since when it waits."""

    request: Request
    segment: Segment
    since: float

    @property
    def nbytes(self) -> int:
        """About what it takes."""
        return tensor_bytes(self.segment) + ROW_BYTES * (1 + len(self.segment.ids))


class SegmentQueue:
    """First in, first out. The segments of each request, and the bytes of all, are bounded."""

    def __init__(self) -> None:
        self._waiting: deque[WaitingSegment] = deque()
        self._bytes = 0
        self._counts: Counter[Request] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def check_room(self, request: Request) -> None:
        """Raise if nothing more of this request may wait.

        RemoteError if it has too many segments here, which no holder sends that keeps to the
        protocol: whoever sends them is not to be heard any longer. StageFailed if it is the bytes
        of all requests: nobody has done wrong then, and once this request is given up, with what
        waits of it, the others go on.
        """
        if self._counts[request] >= MOST_SEGMENTS:
            raise RemoteError(
                f"{self._counts[request]} segments of request {request.number} wait: that is more "
                "than any window"
            )
        if self._bytes >= MOST_BYTES:
            raise StageFailed(
                f"{len(self)} segments of {self._bytes / 2**20:.3g} MiB wait here, which is the "
                "most: fewer requests at a time (--max-requests) take less"
            )

    def append(self, waiting: WaitingSegment) -> None:
        self._waiting.append(waiting)
        self._count(waiting)

    def pop(self) -> WaitingSegment:
        """The segment that has waited longest."""
        waiting = self._waiting.popleft()
        self._discount(waiting)
        return waiting

    def put_back(self, waiting: WaitingSegment) -> None:
        """Undo the last `pop`."""
        self._waiting.appendleft(waiting)
        self._count(waiting)

    def drop_ended(self) -> None:
        """Forget the segments that no longer count."""
        ended = [waiting for waiting in self._waiting if not waiting.request.is_live]
        if ended:
            for waiting in ended:
                self._discount(waiting)
            self._waiting = deque(each for each in self._waiting if each.request.is_live)

    def _count(self, waiting: WaitingSegment) -> None:
        self._bytes += waiting.nbytes
        self._counts[waiting.request] += 1

    def _discount(self, waiting: WaitingSegment) -> None:
        self._bytes -= waiting.nbytes
        self._counts[waiting.request] -= 1
        if not self._counts[waiting.request]:
            del self._counts[waiting.request]
