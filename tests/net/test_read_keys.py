"""A folder of keys is read whole, or one sentence says which file is wrong and what to do."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import minted
import pytest

from gardener.errors import UserError
from gardener.keys.mint import CA_DAYS, new_ca, sign
from gardener.net.keys import read_keys

NOW = time.time()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return minted.made(tmp_path_factory.mktemp("cluster") / "keys")


def copied(made: Path, to: Path, *names: str) -> Path:
    """What a machine gets."""
    to.mkdir()
    for name in names:
        (to / name).write_bytes((made / name).read_bytes())
        (to / name).chmod(0o600)
    return to


THREE = ("ca.pem", "stage-1.pem", "stage-1.key")


@pytest.mark.parametrize("name", minted.NAMES)
def test_what_was_made_is_read(made: Path, name: str) -> None:
    keys = read_keys(made, name, NOW)
    assert str(keys.identity) == f"{name} of cluster oak"
    assert keys.warning(NOW) is None
    assert keys.identity.until - NOW == pytest.approx(
        825 * 86400, abs=3600
    )  # the suite takes a while


def test_three_files_are_all_that_is_needed(made: Path, tmp_path: Path) -> None:
    assert read_keys(copied(made, tmp_path / "one", *THREE), "stage-1", NOW)


def lose(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def other_key(folder: Path) -> None:
    pair = sign(minted.ca(), "stage-1", 9)
    (folder / "stage-1.key").write_bytes(pair.key_pem)


def other_cluster(folder: Path) -> None:
    (folder / "ca.pem").write_bytes(minted.ca("elm").certificate_pem)


def renamed(folder: Path) -> None:
    minted.write(folder, "stage-1", minted.ca(), sign(minted.ca(), "stage-2", 9))


def expired(folder: Path) -> None:
    then = datetime.now(UTC) - timedelta(days=9)
    minted.write(folder, "stage-1", minted.ca(), sign(minted.ca(), "stage-1", 1, then))


def early(folder: Path) -> None:
    then = datetime.now(UTC) + timedelta(days=9)
    minted.write(folder, "stage-1", minted.ca(), sign(minted.ca(), "stage-1", 1, then))


def readable(folder: Path) -> None:
    (folder / "stage-1.key").chmod(0o640)


def a_folder(folder: Path) -> None:
    (folder / "stage-1.pem").unlink()
    (folder / "stage-1.pem").mkdir()


WRONG = {
    "no CA": (lose("ca.pem"), "lacks ca.pem (it has stage-1.pem)"),
    "no certificate": (lose("stage-1.pem"), "lacks stage-1.pem (it has ca.pem)"),
    "no key": (lose("stage-1.key"), "lacks stage-1.key"),
    "CA is none": (write("ca.pem", "hello"), "ca.pem cannot be read as a certificate"),
    "certificate is none": (write("stage-1.pem", "x"), "cannot be read as a certificate and its"),
    "certificate is a folder": (a_folder, "stage-1.pem or stage-1.key cannot be read: is a dir"),
    "key is none": (write("stage-1.key", "x"), "cannot be read as a certificate and its key"),
    "another key": (other_key, "stage-1.key is not the key of stage-1.pem beside it"),
    "another CA": (other_cluster, "was not signed by the CA in ca.pem beside it"),
    "another name": (renamed, "is the certificate of stage-2, and not of stage-1"),
    "expired": (expired, "cannot be used: the certificate of stage-1 of cluster oak expired at"),
    "too early": (early, "cannot be used: the certificate of stage-1 of cluster oak is valid on"),
    "open to others": (readable, "can be read by others (its mode is 0640)"),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(
    made: Path, tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    folder = copied(made, tmp_path / "keys", *THREE)
    change(folder)
    with pytest.raises(UserError) as caught:
        read_keys(folder, "stage-1", NOW)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("there", [True, False])
def test_what_is_no_folder(tmp_path: Path, there: bool) -> None:
    place = tmp_path / "keys"
    if there:
        place.write_text("")
    with pytest.raises(UserError, match=r"(is no folder|does not exist): make one with `gardener"):
        read_keys(place, "holder", NOW)


def test_a_key_that_an_administrator_has_given_is_taken(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(made, tmp_path / "keys", *THREE)
    readable(folder)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert read_keys(folder, "stage-1", NOW)


@pytest.mark.parametrize(("left", "said"), [(31, None), (29, "expires in 29 days")])
def test_an_end_that_is_near_is_told(made: Path, left: float, said: str | None) -> None:
    keys = read_keys(made, "holder", NOW)
    warning = keys.warning(keys.identity.until - left * 86400)
    assert warning is None if said is None else said in str(warning)


@pytest.mark.parametrize(
    ("ca_days", "said"),
    [
        (
            400,
            ": move holder.pem and holder.key away where ca.key is, make new ones there with `g",
        ),
        (
            9,
            ", and with it the CA of the cluster: make new keys for all machines with `gardener",
        ),
    ],
)
def test_only_the_end_of_the_ca_needs_new_keys_for_all(
    tmp_path: Path, ca_days: float, said: str
) -> None:
    """What it signs ends with it."""
    then = datetime.now(UTC) - timedelta(days=CA_DAYS - ca_days)
    ca = new_ca("oak", then)
    minted.write(tmp_path / "keys", "holder", ca, sign(ca, "holder", 825 if ca_days < 10 else 9))
    warning = read_keys(tmp_path / "keys", "holder", NOW).warning(NOW)
    assert f"the certificate of holder of cluster oak expires in 9 days{said}" in str(warning)
