"""The folder of a cluster's keys: made, added to, and looked at. Nothing in it is written over."""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gardener.errors import UserError, reason
from gardener.keys.mint import Pair, check, cluster_of, new_ca, sign
from gardener.protocol.certificates import HOLDER, name_of

CA = "ca"

PRIVATE, FOLDER = 0o600, 0o700


@dataclass(frozen=True)
class Shown:
    """A certificate in a folder, for people.

    since, until  when it is valid
    fingerprint   SHA-256 of the certificate
    has_key       whether its key is beside it
    open_to_all   whether others may read that key
    """

    name: str
    cluster: str
    since: datetime
    until: datetime
    fingerprint: str
    has_key: bool
    open_to_all: bool

    @property
    def days(self) -> float:
        """Until it expires; below 0 it has."""
        return (self.until - datetime.now(UTC)).total_seconds() / (24 * 3600)


def init(folder: Path, cluster: str, stages: int, spares: int, days: float) -> list[str]:
    """Make the CA of a cluster, and a certificate for each of its parts; returns their names.

    The CA's certificate is written last: where it is, all is there. Raises UserError; then, or if
    it is interrupted, nothing was written over and nothing is left."""
    names = [HOLDER, *map(name_of, range(1, stages + 1))]
    names += [f"spare-{number}" for number in range(1, spares + 1)]
    for name in names:
        check(name, days)
    _refuse_existing(folder, (CA, *names))
    ca = new_ca(cluster)
    signed = {**{name: sign(ca, name, days) for name in names}, CA: ca}
    _make(folder)
    _write_all(folder, signed)
    return names


def add(folder: Path, names: Sequence[str], days: float) -> list[str]:
    """Certificates for further parts of a cluster, by the CA in its folder; returns their names.
    Raises UserError."""
    names = list(dict.fromkeys(names))
    for name in names:
        check(name, days)
    ca = _read_ca(folder)
    _refuse_existing(folder, names)
    _write_all(folder, {name: sign(ca, name, days) for name in names})
    return names


def look(folder: Path) -> list[Shown]:
    """What certificates there are: the CA's first. Raises UserError."""
    paths = sorted(folder.glob("*.pem"), key=_order)
    if not paths:
        raise UserError(f"{folder} holds no certificate: make some with `gardener keys init`")
    return [_shown(path) for path in paths]


def _order(path: Path) -> tuple[bool, bool, str, int, str]:
    kind, _, number = path.stem.rpartition("-")
    return (
        path.stem != CA,
        path.stem != HOLDER,
        "" if kind == "stage" else kind,
        int(number) if number.isdecimal() else 0,
        path.stem,
    )


def _shown(path: Path) -> Shown:
    certificate = _certificate(path)
    key = path.with_suffix(".key")
    mode = key.stat().st_mode if key.exists() else 0
    return Shown(
        path.stem,
        cluster_of(certificate),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        key.exists(),
        bool(mode & (stat.S_IRWXG | stat.S_IRWXO)),
    )


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise UserError(f"{path} is no certificate: copy it again, or make new keys") from error


def _read_ca(folder: Path) -> Pair:
    """Raises UserError."""
    certificate, key = folder / "ca.pem", folder / "ca.key"
    for path in (certificate, key):
        if not path.exists():
            raise UserError(
                f"{path} does not exist, and without it nothing can be signed: use the folder that "
                "`gardener keys init` has made, or make new keys for all machines with that"
            )
    found = _certificate(certificate)
    try:
        secret = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise UserError(f"{key} cannot be read: {reason(error)}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{key} is no key without a password: copy it again") from error
    if not isinstance(secret, ec.EllipticCurvePrivateKey) or _differ(found, secret):
        raise UserError(f"{key} is not the key of ca.pem beside it: copy both again")
    return Pair(found, secret)


def _differ(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) != key.public_key().public_bytes(*form)


def _refuse_existing(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError if a file is there already."""
    for name in names:
        for path in (folder / f"{name}.pem", folder / f"{name}.key"):
            if os.path.lexists(path):
                raise UserError(
                    f"{path} is there already, and is not written over: choose another folder, or "
                    "move it away if nobody needs it any more"
                )


def _make(folder: Path) -> None:
    """For its owner alone; one that is there stays as it is. Raises UserError."""
    try:
        folder.mkdir(mode=FOLDER, parents=True)
    except OSError as error:
        if not folder.is_dir():
            raise UserError(f"{folder} cannot be made: {reason(error)}") from error


def _write_all(folder: Path, pairs: Mapping[str, Pair]) -> None:
    """Of each its key and its certificate, in this order; all of them or, as far as that is ours to
    say, none. Raises UserError."""
    files = {}
    for name, pair in pairs.items():
        files[folder / f"{name}.key"] = pair.key_pem
        files[folder / f"{name}.pem"] = pair.certificate_pem
    made: list[Path] = []
    try:
        for path, data in files.items():
            _write(path, data, made)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def _write(path: Path, data: bytes, made: list[Path]) -> None:
    """A file that is new, readable by nobody else from the first byte on; `made` has it as soon as
    it is there. Raises UserError."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        made.append(path)
        with open(number, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {reason(error)}") from error
