"""What becomes of a ring, as one table.

It is closed, stands, breaks, and is closed again, until its holder leaves it. Who holds it goes by
this alone: nothing is asked of a ring that does not stand.
"""

from enum import Enum


class RingState(Enum):
    """Where a ring is."""

    CLOSING = "closing"  # neighbours are dialled and awaited, a Survey goes round
    STANDING = "standing"  # a Survey came round: requests are served
    BROKEN = "broken"  # something was lost; what that was, the neighbours are about to tell
    LEFT = "left"  # the holder is done with it


class RingEvent(Enum):
    """What happens to it."""

    SURVEYED = "surveyed"  # a Survey came round, with cards that fit
    LOST = "lost"  # a link or a stage was
    TOLD = "told"  # all is known of the loss that will be
    LEAVE = "leave"  # its holder wishes so


NEXT = {
    (RingState.CLOSING, RingEvent.SURVEYED): RingState.STANDING,
    (RingState.CLOSING, RingEvent.LOST): RingState.CLOSING,
    (RingState.STANDING, RingEvent.LOST): RingState.BROKEN,
    (RingState.BROKEN, RingEvent.LOST): RingState.BROKEN,
    (RingState.BROKEN, RingEvent.TOLD): RingState.CLOSING,
    (RingState.CLOSING, RingEvent.LEAVE): RingState.LEFT,
    (RingState.STANDING, RingEvent.LEAVE): RingState.LEFT,
    (RingState.BROKEN, RingEvent.LEAVE): RingState.LEFT,
    (RingState.LEFT, RingEvent.LOST): RingState.LEFT,
    (RingState.LEFT, RingEvent.LEAVE): RingState.LEFT,
}
"""Where it is after that. What is not here cannot happen: KeyError."""
