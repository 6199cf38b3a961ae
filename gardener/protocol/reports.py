"""What stages report to the holder, which may be many links away: losses, failures, what they wait
for and how far they are. Each travels on from stage to stage."""

from typing import Annotated

from msgspec import Meta, Struct

from gardener.protocol.names import Name
from gardener.protocol.tensors import Count


class Lost(Struct, frozen=True, array_like=True, tag=11):
    """A neighbour of stage `stage` has lost it. Travels away from it, on to the holder.

    `request` and `seq` name the newest segment that the neighbour gave to the lost stage, if it
    stands before it, or had from it, if it stands after it. `silent` is how long before the loss
    the stage was last heard. `why` is said of "it": `it went silent`.
    """

    stage: Count
    request: Count
    seq: Annotated[int, Meta(ge=-1, le=2**53)]  # -1: none
    silent: Count
    why: Name


class Failed(Struct, frozen=True, array_like=True, tag=13):
    """Stage `stage` could not compute this segment. It has given the request up, but stands.
    Travels both ways to the holder."""

    stage: Count
    request: Count
    seq: Count
    why: Name


class Waiting(Struct, frozen=True, array_like=True, tag=14):
    """Stage `stage` has the holder's Survey and cannot pass it on to stage `peer` (0: the holder);
    `why` is a whole sentence. Travels back to the holder."""

    stage: Count
    peer: Count
    why: Name


class Busy(Struct, frozen=True, array_like=True, tag=17):
    """Stage `stage` computes a pass that takes long, and is on its way through layer `layer` of the
    model. Travels back to the holder, again and again while it lasts.

    `request` and `seq` name the first segment of the pass, `since` is how long it has taken so far.
    A layer as high as the model has layers is its head.
    """

    stage: Count
    request: Count
    seq: Count
    layer: Count
    since: Count
