"""Certificates and their keys, with the package `cryptography`; no files.

Keys are of the curve P-256: a signature over it is the one that every TLS 1.3 has to know (RFC
8446, 9.1), so that any build of OpenSSL takes it, those for FIPS among them; Ed25519 is optional
there, and no quicker to notice: a link shakes hands once.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gardener.errors import UserError
from gardener.protocol.certificates import CLUSTER, NAME, uri

CA_DAYS = 3650
"""For which a CA is good: longer than what it signs, so that stages can be added."""

MOST_DAYS = 3650

BEFORE = timedelta(hours=1)
"""A certificate is valid from so long before it is made: the clocks of machines differ."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def new_ca(cluster: str, now: datetime | None = None) -> Pair:
    """The CA of a cluster. Raises UserError for a name that cannot be."""
    if not CLUSTER.fullmatch(cluster):
        raise UserError(
            f"{cluster!r} cannot be the name of a cluster: take up to 40 letters, digits, dots, "
            "underscores and hyphens, a letter or digit first"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(cluster, "ca")
    builder = _begun(subject, subject, key, now, timedelta(days=CA_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def sign(ca: Pair, name: str, days: float, now: datetime | None = None) -> Pair:
    """A certificate for `name` (`holder`, `stage-2`, `spare-1`), valid for `days` from `now` on but
    no longer than its CA. Raises UserError for a name or days that cannot be, and for a CA that has
    expired."""
    check(name, days)
    cluster = cluster_of(ca.certificate)
    now, end = now or datetime.now(UTC), ca.certificate.not_valid_after_utc
    if end <= now:
        raise UserError(
            f"the CA of cluster {cluster} expired at {end:%Y-%m-%d %H:%M} UTC, and can sign no "
            "more: make new keys for all machines with `gardener keys init`, in a new folder"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _begun(
        _subject(cluster, name),
        ca.certificate.subject,
        key,
        now,
        timedelta(days=days),
        end,
    )
    whose = x509.UniformResourceIdentifier(uri(cluster, name))
    builder = builder.add_extension(x509.SubjectAlternativeName([whose]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]  # it dials, and not
    builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = builder.add_extension(issuer, critical=False)
    return Pair(builder.sign(ca.key, hashes.SHA256()), key)


def check(name: str, days: float) -> None:
    """Raise UserError for a name that no part of a ring has, or for days that cannot be."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"no part of a ring is called {name!r}: take holder, stage-N or spare-N, from 1 on"
        )
    if not 0 < days <= MOST_DAYS:
        raise UserError(f"--days is {days:g}, and must be more than 0 and at most {MOST_DAYS}")


def cluster_of(ca: x509.Certificate) -> str:
    """The cluster that a CA is of. Raises UserError if it is none of ours."""
    found = ca.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    cluster = str(found[0].value) if len(found) == 1 else ""
    if not CLUSTER.fullmatch(cluster):
        raise UserError("ca.pem was not made by `gardener keys init`: make new keys with that")
    return cluster


def _subject(cluster: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime | None,
    valid: timedelta,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    """What all certificates have."""
    now = now or datetime.now(UTC)
    until = now + valid
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(until if latest is None else min(until, latest))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
