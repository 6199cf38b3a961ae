"""What a peer shows to somebody who only looks at it: what it does now, beside its card."""

from msgspec import Struct

from gardener.protocol.names import Name
from gardener.protocol.tensors import Count


class Near(Struct, frozen=True, array_like=True):
    """A peer to which there is a link now: its stage (0: the holder) and its address as seen from
    here. Microseconds of the shortest round trip of late (0: not known yet) and since it was last
    heard; bytes/s to it (0: not measured)."""

    stage: Count
    where: Name
    round_trip: Count = 0
    silent: Count = 0
    bandwidth: Count = 0


class Sight(Struct, frozen=True, array_like=True):
    """What is to be seen of a peer at this moment.

    clock       microseconds since 1970, as its wall clock says it
    does        what keeps it from serving, as `is loading its weights, 34 %`; empty: nothing
    upstream, downstream  whom it is linked to
    peer        where it dials the next peer
    obstacle    why nobody is reached there, a whole sentence
    requests, kept, used  requests that run, those that are kept, and slots set aside for them
    device, free  what it computes on, and bytes that nobody uses there now; 0: not known
    python, torch their versions
    """

    clock: Count
    does: Name = ""
    upstream: Near | None = None
    downstream: Near | None = None
    peer: Name = ""
    obstacle: Name = ""
    requests: Count = 0
    kept: Count = 0
    used: Count = 0
    device: Name = ""
    free: Count = 0
    python: Name = ""
    torch: Name = ""


class Look(Struct, frozen=True, array_like=True, tag=15):
    """First message of one that wants no link, only to see who is there."""

    protocol: Count
