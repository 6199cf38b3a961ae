"""Folders of keys for tests, good ones and bad ones, made once for a process."""

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from gardener.keys.folder import init
from gardener.keys.mint import Pair, new_ca, sign
from gardener.net.keys import Keys, read_keys

NAMES = ("holder", "stage-1", "stage-2", "spare-1")


@cache
def ca(cluster: str = "oak") -> Pair:
    return new_ca(cluster)


def write(folder: Path, name: str, authority: Pair, pair: Pair) -> None:
    """The three files that `name` needs."""
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    (folder / f"{name}.pem").write_bytes(pair.certificate_pem)
    key = folder / f"{name}.key"
    key.touch(0o600)
    key.write_bytes(pair.key_pem)


@cache
def keys(
    name: str, cluster: str = "oak", begin: float = 0.0, end: float = 10.0, uri: str = ""
) -> Keys:
    """The keys of `name`, valid from `begin` days from now on to `end`. Those that are not valid
    now are read as if it were then. `uri`: what the certificate says in place of who that is."""
    now = datetime.now(UTC) + timedelta(days=begin)
    if begin > 0:
        now += timedelta(hours=1)  # how much earlier a certificate begins
    folder = Path(tempfile.mkdtemp(prefix="gardener-keys-"))
    try:
        write(folder, name, ca(cluster), sign(ca(cluster), name, end - begin, now))
        good = read_keys(folder, name, now.timestamp())
        if uri:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("gardener.keys.mint.uri", lambda *_: uri)
                pair = sign(ca(cluster), name, end - begin, now)
            write(folder, name, ca(cluster), pair)
            for context in (good.dialling, good.accepting):
                context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        return good
    finally:
        shutil.rmtree(folder)


def made(folder: Path, stages: int = 2, spares: int = 1) -> Path:
    """What `gardener keys init` makes."""
    init(folder, "oak", stages, spares, 825)
    return folder
