"""Commands against keys that are missing, wrong, about to expire, or of another cluster."""

import re
from pathlib import Path

import minted
import pytest
from examined import address, cluster, ring, stage

from gardener.cluster.doctor.examine import examine
from gardener.cluster.doctor.finding import Finding, Severity, Subject
from gardener.cluster.doctor.own_keys import OwnKeys
from gardener.cluster.doctor.seen import Seen
from gardener.net.look import Unseen, Why

LACKS = "--keys lacks stage-1.key: copy the missing"
SPEAKS = Unseen(Why.KEYS, "this port speaks TLS")
OTHER = Unseen(Why.KEYS, "we refused it: its certificate is of another cluster, the CA in our ...")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return minted.made(tmp_path / "keys")


def lacking(folder: Path, name: str, seen: Unseen | None, holder: str = "here") -> Finding:
    """The first finding where the keys of `name` are missing here."""
    own = OwnKeys(folder, problems=((name, LACKS),))
    stages = [stage(n, seen=seen) for n in (1, 2, 3)]
    return examine(ring(*stages, of=cluster(), own=own, holder=holder))[0]


def test_where_the_ca_is_keys_are_added(folder: Path) -> None:
    """And not a new CA made, which nobody knows; what is there is moved aside first."""
    (folder / "stage-1.key").unlink()
    found = lacking(folder, "stage-1", SPEAKS)
    assert found.command == (
        f"mv {folder}/stage-1.pem {folder}/stage-1.pem.old && gardener keys add {folder} stage-1"
    )


def test_from_another_machine_three_files_are_copied_by_name(folder: Path) -> None:
    """OpenSSH 9 knows no braces, and our path is not theirs."""
    (folder / "ca.key").unlink()
    found = lacking(folder, "stage-1", SPEAKS, holder="away")
    assert found.command == (
        f"scp -p 10.0.0.1:KEYS/ca.pem 10.0.0.1:KEYS/stage-1.pem 10.0.0.1:KEYS/stage-1.key {folder}/"
    )
    assert "KEYS stands for their folder there" in found.sentence
    assert "`gardener keys add KEYS stage-1`" in found.sentence


def test_where_others_have_keys_no_new_ca_is_made(tmp_path: Path) -> None:
    found = lacking(tmp_path / "keys", "holder", SPEAKS)
    assert found.command.startswith(f"mkdir -p -m 700 {tmp_path}/keys && scp -p HOST:KEYS/ca.pem ")
    assert "HOST the machine that has ca.key" in found.sentence


def test_where_nobody_has_keys_they_are_made(tmp_path: Path) -> None:
    found = lacking(tmp_path / "keys", "holder", None)
    assert found.command == f"gardener keys init {tmp_path}/keys --stages 3 --name home"
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "ca.pem").touch()
    found = lacking(tmp_path / "keys", "holder", None)
    assert found.command.startswith(f"gardener keys init {tmp_path}/keys-new ")


def test_what_expires_is_made_anew_by_the_same_ca(folder: Path) -> None:
    own = OwnKeys(folder, warnings=(("holder", "it expires in 9 days"),))
    (found,) = examine(ring(stage(1), stage(2), stage(3), of=cluster(), own=own))
    assert (found.severity, found.on) == (Severity.WARNING, "")
    assert found.command.endswith(f"holder.key.old && gardener keys add {folder} holder")


def foreign(folder: Path, *numbers: int) -> Seen:
    """These stages are of another cluster than we."""
    own = OwnKeys(folder, minted.keys("holder"))
    stages = [stage(n, seen=OTHER if n in numbers else None) for n in (1, 2, 3)]
    return ring(*stages, of=cluster(), own=own)


def test_if_all_are_of_another_cluster_it_is_us(folder: Path) -> None:
    (folder / "ca.key").unlink()
    (found,) = examine(foreign(folder, 1, 2, 3))
    assert (found.subject, found.where) == (Subject.KEYS, "holder on this machine")
    assert "copy ca.pem and our own two files again" in found.sentence
    assert found.command.startswith("scp -p HOST:KEYS/ca.pem HOST:KEYS/holder.pem ")


def test_with_the_ca_here_the_others_get_what_it_has_signed(folder: Path) -> None:
    (found,) = examine(foreign(folder, 1, 2, 3))
    copied = re.findall(r"scp -p \S+/ca.pem \S+/(\S+).pem \S+.key (\S+):KEYS/", found.command)
    assert copied == [(f"stage-{n}", address(n).host) for n in (1, 2, 3)]


def test_if_one_is_of_another_cluster_it_is_that_one(folder: Path) -> None:
    found = examine(foreign(folder, 2))[0]
    assert found.where == f"stage 2 at {address(2)}"
    assert found.command == (
        f"scp -p {folder}/ca.pem {folder}/stage-2.pem {folder}/stage-2.key 10.0.0.3:KEYS/"
    )
