"""`gardener keys` as a user gives it, and what it prints."""

import json
import sys
from pathlib import Path

import pytest

from gardener.cli import main, program


def said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """Exit status and what `gardener keys` printed, on both streams."""
    monkeypatch.setattr(sys, "argv", ["gardener", "keys", *words])
    with pytest.raises(SystemExit) as end:
        program.program(main.app)
    return (int(end.value.code or 0), *capfd.readouterr())


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_says_what_goes_where(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("init", "keys", "--stages", "2", "--spares", "1", "--name", "oak", "--days", "20")
    status, out, _ = said(monkeypatch, capfd, *words)
    assert status == 0
    for name in ("holder", "stage-1", "stage-2", "spare-1"):
        assert f"ca.pem, {name}.pem, {name}.key" in out
    assert "ca.key goes to none of them" in out
    status, out, _ = said(monkeypatch, capfd, "show", "keys", "--json")
    shown = {each["name"]: each for each in json.loads(out)}
    assert list(shown) == ["ca", "holder", "stage-1", "stage-2", "spare-1"]
    assert {each["cluster"] for each in shown.values()} == {"oak"}
    assert 19.9 < shown["stage-2"]["days"] <= 20
    Path("keys/stage-2.key").chmod(0o644)
    status, out, _ = said(monkeypatch, capfd, "show", "keys")
    assert "stage-2 of cluster oak: until " in out
    assert "OTHERS CAN READ ITS KEY: chmod 600 stage-2.key" in out
    assert f"SHA-256 {shown['holder']['sha256']}" in out


def test_what_is_there_stays_and_more_is_added(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert said(monkeypatch, capfd, "init", "keys", "--stages", "1")[0] == 0
    before = {path: path.read_bytes() for path in Path("keys").iterdir()}
    status, _, err = said(monkeypatch, capfd, "init", "keys", "--stages", "3")
    assert status == 1
    assert err.endswith(
        "error: keys/ca.pem is there already, and is not written over: choose another folder, or "
        "move it away if nobody needs it any more\n"
    )
    status, out, _ = said(monkeypatch, capfd, "add", "keys", "stage-2", "spare-1")
    assert status == 0
    assert "certificates for stage-2, spare-1" in out
    after = {path: path.read_bytes() for path in Path("keys").iterdir()}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 4


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (("init", "keys", "--stages", "0"), 2, "Must be >= 1"),
        (("init", "keys", "--stages", "1", "--days", "9999"), 2, "Must be <= 3650"),
        (("init", "keys", "--stages", "1", "--name", "a b"), 1, "'a b' cannot be the name of a"),
        (("show", "keys"), 1, "keys holds no certificate: make some with `gardener keys init`"),
        (("add", "keys", "stage-2"), 1, "keys/ca.pem does not exist, and without it nothing can"),
        (("show",), 2, "requires an argument"),
    ],
)
def test_what_is_wrong_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    status: int,
    why: str,
) -> None:
    found, _, err = said(monkeypatch, capfd, *words)
    assert found == status
    assert why.lower() in err.lower()
    assert "Traceback" not in err


def test_a_folder_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("keys").write_text("")
    status, _, err = said(monkeypatch, capfd, "init", "keys", "--stages", "1")
    assert status == 1
    assert "error: keys cannot be made: " in err
