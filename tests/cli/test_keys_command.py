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
    assert (
        "  spare-1  ca.pem, spare-1.pem, spare-1.key  -> gardener-node --spare 1 --keys DIR\n"
        in out
    )
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


CLUSTER = """
name = "home"
model = "smollm2-135m"
keys = "keys"
holder = { host = "127.0.0.1", port = 7000 }
stage.1 = { host = "127.0.0.1", port = 7001 }
stage.2 = { host = "127.0.0.1", port = 7002 }
"""


@pytest.mark.parametrize("folder", [(), ("keys",)])
def test_they_are_added_and_shown_where_the_cluster_file_says(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], folder: tuple[str, ...]
) -> None:
    def out(*words: str) -> str:
        status, out, err = said(monkeypatch, capfd, *words)
        assert status == 0, err
        return out

    Path("cluster.toml").write_text(CLUSTER)
    made = out("init", *folder, *(("--stages", "2") if folder else ()))
    assert "  -> gardener-node --stage 2\n" in made
    added = out("add", *folder, "stage-3", "spare-1")
    assert "  -> gardener-node --stage 3\n" in added
    assert "  -> gardener-node --spare 1\n" in added
    assert "cluster.toml, and, into a folder keys beside it:\n" in added
    assert "spare-1 of cluster home: until " in out("show", *folder)


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
        (("show",), 2, "say which folder to look at: gardener keys show DIR, or write a cluster."),
        (("add", "stage-2"), 2, "say which folder it is: gardener keys add DIR stage-2, or write"),
        (("add", "keys"), 2, "say who needs keys: gardener keys add keys stage-4"),
        (("add",), 2, "requires an argument"),
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
