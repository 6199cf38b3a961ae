"""Keys are made once, for their owner alone, and nothing is written over."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import minted
import pytest

from gardener.errors import UserError
from gardener.keys.folder import add, init, look
from gardener.keys.mint import new_ca, sign
from gardener.net.keys import read_keys


def test_all_that_a_cluster_needs_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "keys"
    names = init(folder, "oak", 2, 1, 30)
    assert names == ["holder", "stage-1", "stage-2", "spare-1"]
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{kind}" for name in (*names, "ca") for kind in ("pem", "key")
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_what_is_there_is_looked_at(tmp_path: Path) -> None:
    folder = minted.made(tmp_path / "keys", stages=11)
    found = look(folder)
    assert [each.name for each in found] == [
        "ca",
        "holder",
        *(f"stage-{number}" for number in range(1, 12)),
        "spare-1",
    ]
    assert {each.cluster for each in found} == {"oak"}
    assert [each.days for each in found[1:]] == [pytest.approx(825, abs=0.1)] * 13
    assert all(each.has_key and not each.open_to_all for each in found)
    assert len({each.fingerprint for each in found}) == 14
    (folder / "stage-3.key").chmod(0o644)
    (folder / "ca.key").unlink()
    found = look(folder)
    assert (found[0].has_key, found[4].open_to_all) == (False, True)


@pytest.mark.parametrize("there", ["ca.key", "ca.pem", "holder.pem", "stage-2.key"])
def test_nothing_is_written_over(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(UserError, match=f"{there} is there already, and is not written over"):
        init(tmp_path, "oak", 2, 0, 30)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    """It may be the one where one works, or one that others have to read."""
    tmp_path.chmod(0o755)
    init(tmp_path, "oak", 1, 0, 30)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("trouble", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: BaseException
) -> None:
    """And can be begun anew. Until the end the folder has no ca.pem, by which who looks can tell
    that all is there, even if we are killed."""
    made: list[str] = []

    def write(path: str | Path, *rest: int) -> int:
        made.append(Path(path).name)
        if made[-1] == "ca.pem":
            raise trouble
        return os_open(path, *rest)

    os_open = os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", write)
        with pytest.raises((UserError, KeyboardInterrupt)):
            init(tmp_path, "oak", 1, 0, 30)
    assert made == ["holder.key", "holder.pem", "stage-1.key", "stage-1.pem", "ca.key", "ca.pem"]
    assert list(tmp_path.iterdir()) == []
    assert init(tmp_path, "oak", 1, 0, 30) == ["holder", "stage-1"]


def test_not_even_through_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "holder.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"holder\.key is there already"):
        init(tmp_path, "oak", 1, 0, 30)


def test_a_stage_is_added_by_the_same_ca(tmp_path: Path) -> None:
    folder = minted.made(tmp_path / "keys")
    assert add(folder, ["stage-9", "spare-2", "stage-9"], 30) == ["stage-9", "spare-2"]
    keys = read_keys(folder, "stage-9", datetime.now(UTC).timestamp())
    assert str(keys.identity) == "stage-9 of cluster oak"
    with pytest.raises(UserError, match=r"stage-1\.pem is there already"):
        add(folder, ["stage-3", "stage-1"], 30)
    assert not (folder / "stage-3.pem").exists()


def test_an_old_certificate_is_made_anew_once_it_is_moved_away(tmp_path: Path) -> None:
    folder = minted.made(tmp_path / "keys")
    before = (folder / "stage-1.pem").read_bytes()
    for kind in ("pem", "key"):
        (folder / f"stage-1.{kind}").unlink()
    add(folder, ["stage-1"], 30)
    assert (folder / "stage-1.pem").read_bytes() != before
    assert read_keys(folder, "stage-1", datetime.now(UTC).timestamp())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "ca.key").unlink(), "ca.key does not exist, and without it"),
        (lambda folder: (folder / "ca.key").write_text("x"), "ca.key is no key without a password"),
        (lambda folder: (folder / "ca.pem").write_text("x"), "ca.pem is no certificate"),
        (
            lambda folder: (folder / "ca.key").write_bytes(new_ca("oak").key_pem),
            "ca.key is not the key of ca.pem beside it",
        ),
    ],
)
def test_a_ca_that_cannot_sign(tmp_path: Path, change: object, said: str) -> None:
    folder = minted.made(tmp_path / "keys")
    assert callable(change)
    change(folder)
    with pytest.raises(UserError, match=said):
        add(folder, ["stage-3"], 30)


@pytest.mark.parametrize("name", ["stage-0", "stage-01", "stage", "ca", "", "../stage-1", "Holder"])
def test_a_name_that_no_part_of_a_ring_has(tmp_path: Path, name: str) -> None:
    folder = minted.made(tmp_path / "keys")
    with pytest.raises(UserError, match="no part of a ring is called"):
        add(folder, [name], 30)


@pytest.mark.parametrize("cluster", ["", "two words", "-x", "x" * 41, "a/b", "é"])
def test_a_cluster_that_cannot_be_called_so(tmp_path: Path, cluster: str) -> None:
    with pytest.raises(UserError, match="cannot be the name of a cluster"):
        init(tmp_path / "keys", cluster, 1, 0, 30)
    assert not (tmp_path / "keys").exists()


def test_no_certificate_outlives_its_ca() -> None:
    then = datetime.now(UTC) - timedelta(days=3600)
    ca = new_ca("oak", then)
    pair = sign(ca, "stage-1", 825)
    assert pair.certificate.not_valid_after_utc == ca.certificate.not_valid_after_utc


@pytest.mark.parametrize("hours", [0.5, 24.0])
def test_a_ca_that_has_expired_signs_no_more(tmp_path: Path, hours: float) -> None:
    """Not even within the hour by which a certificate begins earlier than it is made."""
    ca = new_ca("oak", datetime.now(UTC) - timedelta(days=3650, hours=hours))
    (tmp_path / "ca.pem").write_bytes(ca.certificate_pem)
    (tmp_path / "ca.key").write_bytes(ca.key_pem)
    with pytest.raises(UserError, match=r"the CA of cluster oak expired at .*`gardener keys init`"):
        add(tmp_path, ["stage-3"], 30)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("days", [0.0, -1.0, 3651.0, float("nan"), float("inf")])
def test_days_that_cannot_be(tmp_path: Path, days: float) -> None:
    with pytest.raises(UserError, match="--days is"):
        init(tmp_path / "keys", "oak", 1, 0, days)


def test_a_folder_without_keys(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no certificate: make some with `gardener keys"):
        look(tmp_path)
