"""Every way in which a link ends, with the sentences for the owner of the link and for the peer."""

from dataclasses import dataclass

from gardener.errors import Distrusted, GardenerError, PeerLost, RemoteError
from gardener.protocol.messages import Bye
from gardener.protocol.names import as_name
from gardener.protocol.strangers import Stranger
from gardener.runtime.wording import printable


@dataclass(frozen=True)
class Parting:
    """Why a link has ended.

    error       what the owner of the link is told
    cause       the same, said of the peer as "it": `it went silent`
    bye         what the peer is told; None: nothing in our own words
    answer      what a peer is told that does not know our words, as bytes
    alerted     TLS has told the peer
    stood_still seconds for which this process did, if the link ended because of that
    """

    error: GardenerError
    cause: str = ""
    bye: Bye | None = None
    answer: bytes = b""
    alerted: bool = False
    stood_still: float = 0.0

    @property
    def tells(self) -> bool:
        """Whether something is on its way to the peer; if not, the connection is dropped at
        once."""
        return self.bye is not None or bool(self.answer) or self.alerted


def closed_by_us(peer: object, why: str, *, politely: bool) -> Parting:
    """The owner of the link does not want it any more."""
    error = PeerLost(f"we closed the link to {peer}: {why}")
    return Parting(error, bye=_bye(why) if politely else None)


def pushed_out(peer: object) -> Parting:
    """A greeting was dropped for one that came later."""
    return Parting(PeerLost(f"{peer}: the greeting was pushed out by newer ones"))


def overdue(peer: object, why: str) -> Parting:
    """A greeting took too long."""
    return Parting(PeerLost(f"{peer}: {why}"), bye=_bye(why))


def refused(peer: object, why: str) -> Parting:
    """We do not take this peer as our neighbour."""
    return Parting(PeerLost(f"we refused {peer}: {printable(why)}"), bye=_bye(why))


def disbelieved(peer: object, why: str) -> Parting:
    """We do not take this peer for what it says it is."""
    return Parting(Distrusted(f"we refused {peer}: {printable(why)}"), bye=_bye(why))


def left(peer: object, bye: Bye, *, was_open: bool, secured: bool = False) -> Parting:
    """The peer has said Bye. `secured`: it may not believe us."""
    said = f"{'left' if was_open else 'refused the link'}: {printable(bye.why)}"
    kind = Distrusted if secured and not was_open else PeerLost
    return Parting(kind(f"{peer} {said}"), f"it {said}")


def stranger(peer: object, found: Stranger) -> Parting:
    """The peer does not talk as we do."""
    error = Distrusted(f"{peer} {found.said}")
    bye = None if found.answer else found.bye
    return Parting(error, f"it {found.said}", bye, found.answer)


def untrusted(peer: object, why: str) -> Parting:
    """TLS does not let us believe the peer, or what comes from it; and tells it so."""
    return Parting(Distrusted(f"we refused {peer}: {why}"), why, alerted=True)


def distrusted(peer: object, why: str) -> Parting:
    """TLS does not let the peer believe us."""
    return Parting(Distrusted(f"{peer} refused the link: {why}"), f"it refused the link: {why}")


def breach(peer: object, error: RemoteError) -> Parting:
    """The peer said what it may not say."""
    said = f"broke the protocol: {error}"
    return Parting(RemoteError(f"{peer} {said}"), f"it {said}", _bye(str(error)))


def muted(peer: object) -> Parting:
    """The peer has ended its direction of the link, and has not said why."""
    cause = "it ended TLS without a Bye"
    bye = _bye("you ended TLS without a Bye")
    return Parting(PeerLost(f"{peer} ended TLS without a Bye"), cause, bye)


def silent(peer: object, seconds: float) -> Parting:
    """Nothing has come from the peer for too long."""
    return Parting(PeerLost(f"{peer} went silent, {_last_heard(seconds)}"), "it went silent")


def unread(peer: object, size: int) -> Parting:
    """The peer reads too slowly, or not at all."""
    cause = f"it left {size} bytes unread"
    return Parting(PeerLost(f"{peer} does not read what it is sent: {cause}"), cause)


def broken(peer: object, failure: str | None, seconds: float, stood_still: float) -> Parting:
    """The connection is gone, because of this failure of the network or else for no known reason.

    seconds: since the peer was heard. stood_still: seconds for which this process did just before.
    """
    if failure is None:
        reason = f"{peer} closed the connection without saying why"
    else:
        reason = f"the connection to {peer} broke ({failure})"
    if stood_still:
        reason = f"this process stood still for {stood_still:.0f} s, and {reason}"
    error = PeerLost(f"{reason}, {_last_heard(seconds)}")
    return Parting(error, "the connection broke", stood_still=stood_still)


def _bye(why: str) -> Bye:
    return Bye(as_name(why))


def _last_heard(seconds: float) -> str:
    return f"last heard {seconds:.1f} s ago"
