"""Who a peer has proved to be by its certificate, and why that is not enough.

The arithmetic is TLS's (`net/tls.py`). Here is what a certificate of `gardener keys` says, what it
may stand for, and the sentences for both ends where it is refused. Dates are checked here and not
by TLS: a link that TLS refuses ends with a number, and this one with a name.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

HOLDER = "holder"
"""The name of the holder's certificate; stages have `stage-2`, spares `spare-1`."""

CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
"""How a cluster may be called: the name stands in certificates and in addresses."""

NAME = re.compile(r"holder|(?:stage|spare)-[1-9][0-9]{0,5}")
"""Whom a certificate may be for."""

_URI = re.compile(f"gardener://({CLUSTER.pattern})/({NAME.pattern})")

ONE_CLUSTER = "all machines of a ring need files that one `gardener keys init` has made"


@dataclass(frozen=True)
class Identity:
    """What a certificate says of whoever shows it.

    cluster       the cluster whose CA signed it
    name          `holder`, `stage-2` or `spare-1`
    since, until  when it is valid, in seconds since 1970
    """

    cluster: str
    name: str
    since: float
    until: float

    def __str__(self) -> str:
        return f"{self.name} of cluster {self.cluster}"

    def stands_for(self, stage: int) -> bool:
        """Whether who shows it may be this stage (0: the holder)."""
        return self.name == name_of(stage) or (stage > 0 and self.name.startswith("spare-"))


def name_of(stage: int) -> str:
    """The name in the certificate of a stage; 0 is the holder."""
    return f"stage-{stage}" if stage else HOLDER


def uri(cluster: str, name: str) -> str:
    """What stands for both in a certificate, as its subject's other name."""
    return f"gardener://{cluster}/{name}"


def named(found: str) -> tuple[str, str] | None:
    """Cluster and name that a `uri` stands for; None if it is something else."""
    match = _URI.fullmatch(found)
    return (match[1], match[2]) if match else None


def problem(identity: Identity | None, wall: float, clock: str) -> str | None:
    """Why nobody is believed who shows this certificate, or None; both ends are told.

    identity: None if it names nobody. wall: seconds since 1970, by the clock of machine `clock`.
    """
    if identity is None:
        return f"the certificate is none of `gardener keys`: {ONE_CLUSTER}"
    here = f"the clock of {clock} says {moment(wall)}"
    if wall >= identity.until:
        return (
            f"the certificate of {identity} expired at {moment(identity.until)} ({here}): if that "
            f"clock is right, {again(identity.name)}"
        )
    if wall < identity.since:
        return (
            f"the certificate of {identity} is valid only from {moment(identity.since)} on "
            f"({here}): set that clock"
        )
    return None


def stage_problem(identity: Identity, stage: int) -> str | None:
    """Why a peer with this certificate is not this stage, or None; both ends are told."""
    if identity.stands_for(stage):
        return None
    who = f"stage {stage}" if stage else "the holder"
    return (
        f"the certificate is that of {identity}, and {who} has shown it: start {who} with "
        f"{name_of(stage)}.pem and {name_of(stage)}.key in its --keys folder"
    )


def again(name: str) -> str:
    """How to renew the certificate of this part of a ring; the others keep theirs."""
    return (
        f"move {name}.pem and {name}.key away where ca.key is, make new ones there with `gardener "
        f"keys add DIR {name}`, and copy both to its machine"
    )


def moment(seconds: float) -> str:
    """A time for people, of seconds since 1970."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return "a time that no calendar has"


# --- what TLS finds ------------------------------------------------------------------------------

_ANOTHER_CA = frozenset((7, 18, 19, 20, 21, 24, 26))
"""OpenSSL's numbers (X509_V_ERR_*) of a certificate that our CA has not signed for this."""

_FAILURES = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": f"it has shown no certificate: {ONE_CLUSTER}",
    "UNSUPPORTED_PROTOCOL": "it speaks an older TLS than 1.3, so it is no Gardener with --keys",
    "HTTP_REQUEST": "it speaks HTTP, and not TLS",
}

_ALERTS = {
    "UNKNOWN_CA": "is not of its cluster: the CA in its ca.pem has not signed it",
    "DECRYPT_ERROR": "is not of its cluster: the CA in its ca.pem has not signed it",
    "CERTIFICATE_EXPIRED": "has expired by its clock",
    "BAD_CERTIFICATE": "is none that it takes, perhaps not valid yet by its clock",
    "UNSUPPORTED_CERTIFICATE": "is of a kind that it does not take",
    "CERTIFICATE_REVOKED": "was revoked",
    "CERTIFICATE_UNKNOWN": "is none that it takes",
    "CERTIFICATE_REQUIRED": "has not come: it wants one",
    "ACCESS_DENIED": "is none that it takes",
}


def untrusted(number: int, words: str) -> str:
    """Why we do not believe the peer's certificate, by OpenSSL's number and words."""
    if number in _ANOTHER_CA:
        return (
            "its certificate is of another cluster, the CA in our ca.pem has not signed it: "
            f"{ONE_CLUSTER}"
        )
    return f"its certificate cannot be believed ({words}): {ONE_CLUSTER}"


def refusal(reason: str, ours: Identity) -> str | None:
    """Why the peer does not believe our certificate, if OpenSSL's `reason` is an alert of TLS;
    None if it is something else."""
    _, found, alert = reason.upper().replace(" ", "_").partition("ALERT_")
    if not found:
        return None
    if said := _ALERTS.get(alert):
        return f"our certificate, {ours}, {said}; {ONE_CLUSTER}"
    return f"it gave TLS up ({_words(alert)})"


def failure(reason: str) -> str:
    """What the peer has done to TLS, by OpenSSL's `reason`."""
    return _FAILURES.get(reason) or f"what it says is no proper TLS ({_words(reason)})"


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ") or "for no known reason"
