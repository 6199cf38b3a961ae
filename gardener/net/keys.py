"""The keys of one peer: what `--keys DIR` names, read and tried before anything depends on it.

Of the files in the folder a peer needs three: `ca.pem`, by which it knows the others, and its own
certificate and key, `stage-2.pem` and `stage-2.key`. Only the standard library is needed here;
`gardener.keys` makes the files.
"""

import math
import os
import ssl
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from gardener.errors import UserError, reason
from gardener.protocol.certificates import ONE_CLUSTER, Identity, again, named, problem

SOON = 30
"""Days before a certificate expires from which on that is told."""

DAY = 24 * 3600.0

NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which `ssl` has no name for: we check dates ourselves, right
after the handshake, so that the refusal can say whose certificate it was (`protocol.certificates`).
Where a library does not know the flag it refuses by itself, with less to say."""

OTHERS = stat.S_IRWXG | stat.S_IRWXO

Certificate: TypeAlias = Mapping[str, Any]
"""As `ssl` gives one that it has verified."""


@dataclass(frozen=True)
class Keys:
    """Who we are on secured links, and by what we know the others.

    authority_until  when our CA expires, in seconds since 1970; nothing that it has signed is valid
                     for longer
    """

    folder: Path
    identity: Identity
    authority_until: float
    dialling: ssl.SSLContext
    accepting: ssl.SSLContext

    def warning(self, wall: float) -> str | None:
        """That our certificate expires soon, if it does; `wall` is in seconds since 1970."""
        left = (self.identity.until - wall) / DAY
        if left > SOON:
            return None
        what = f"the certificate of {self.identity} expires in {left:.0f} days"
        if self.identity.until >= self.authority_until:
            return (
                f"{what}, and with it the CA of the cluster: make new keys for all machines with "
                "`gardener keys init`, in a new folder, and change them before"
            )
        return f"{what}: {again(self.identity.name)} before"


def read_keys(folder: Path, name: str, wall: float) -> Keys:
    """The keys of `name` (`holder`, `stage-2`, `spare-1`) in a folder; `wall` is the time in
    seconds since 1970. Raises UserError, with what is wrong with which file."""
    ca, certificate, key = (folder / each for each in ("ca.pem", f"{name}.pem", f"{name}.key"))
    _check_there(folder, (ca, certificate, key))
    _check_private(key)
    contexts = [_context(kind, ca, certificate, key) for kind in _KINDS]
    dialling, accepting = contexts
    try:
        identity = identity_of(_shown(dialling, accepting))
    except ssl.SSLError as error:
        raise UserError(
            f"{certificate} was not signed by the CA in {ca.name} beside it "
            f"({_words(error)}): {ONE_CLUSTER}"
        ) from error
    if identity is not None and identity.name != name:
        raise UserError(
            f"{certificate} is the certificate of {identity.name}, and not of {name}: copy the "
            "files again, under their own names"
        )
    if why := problem(identity, wall, "this machine"):
        raise UserError(f"{certificate} cannot be used: {why}")
    assert identity is not None
    return Keys(folder, identity, _authority_until(dialling), dialling, accepting)


def _authority_until(context: ssl.SSLContext) -> float:
    """When the CA that this trusts expires, in seconds since 1970; of several, the last one."""
    found = [ssl.cert_time_to_seconds(str(ca["notAfter"])) for ca in context.get_ca_certs()]
    return max(found, default=math.inf)


def identity_of(certificate: Certificate | None) -> Identity | None:
    """What a verified certificate says, None if it is none of ours."""
    names = (certificate or {}).get("subjectAltName", ())
    found = [named(value) for kind, value in names if kind == "URI"]
    if certificate is None or len(found) != 1 or found[0] is None:
        return None
    since, until = (ssl.cert_time_to_seconds(certificate[at]) for at in ("notBefore", "notAfter"))
    return Identity(*found[0], since, until)


def _check_there(folder: Path, needed: Sequence[Path]) -> None:
    """Raise UserError if a file is missing."""
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise UserError(
            f"--keys {folder} {what}: make one with `gardener keys init`, and copy to each machine "
            "what that says"
        )
    missing = [path.name for path in needed if not path.exists()]
    if missing:
        there = sorted(path.name for path in folder.glob("*.pem")) or ["no certificate at all"]
        raise UserError(
            f"--keys {folder} lacks {', '.join(missing)} (it has {', '.join(there)}): copy the "
            "missing from the folder that `gardener keys init` has made"
        )


def _check_private(key: Path) -> None:
    """Raise UserError if others may read a key that is ours to protect. As ssh has it: who runs as
    another user than the file's owner was given the file by an administrator, who knows."""
    try:
        found = key.stat()
    except OSError as error:
        raise UserError(f"{key} cannot be read: {reason(error)}") from error
    if found.st_uid == os.geteuid() and found.st_mode & OTHERS:
        raise UserError(
            f"{key} can be read by others (its mode is {stat.S_IMODE(found.st_mode):04o}), who "
            f"could then pose as {key.stem}: chmod 600 {key}, and make new keys if somebody may "
            "have read it"
        )


_KINDS = (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)


def _context(kind: int, ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Mutual TLS 1.3 with these files. Raises UserError."""
    context = ssl.SSLContext(kind)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a peer is known by its part in the ring, wherever it is
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= NO_CHECK_TIME
    if kind == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # a link is never resumed
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"{ca} cannot be read as a certificate: {_words(error)}") from error
    try:
        context.load_cert_chain(certificate, key, password="")  # nobody is asked for one
    except (OSError, ssl.SSLError) as error:
        raise UserError(_unusable(certificate, key, error)) from error
    return context


def _unusable(certificate: Path, key: Path, error: OSError) -> str:
    """Why these two cannot be used."""
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"{key} is not the key of {certificate.name} beside it: copy both again"
    if isinstance(error, ssl.SSLError):
        both = f"{certificate} and {key.name} cannot be read as a certificate and its key"
        return f"{both} (a key with a password cannot be used): {_words(error)}"
    return f"{certificate} or {key.name} cannot be read: {reason(error)}"


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is no PEM file").lower().replace("_", " ")
    return reason(error)


def _shown(dialling: ssl.SSLContext, accepting: ssl.SSLContext) -> Certificate | None:
    """Our own certificate, as a peer with the same CA sees it: a handshake with ourselves. Raises
    ssl.SSLError where such a peer would refuse it."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = dialling.wrap_bio(back, there)
    far = accepting.wrap_bio(there, back, server_side=True)
    for end in (near, far, near, far):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return near.getpeercert()
