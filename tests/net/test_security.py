"""Without keys a link stays within this machine, unless somebody says that all are trusted."""

import socket
import time
from pathlib import Path

import minted
import pytest

from gardener.errors import UserError
from gardener.net.address import Address, Inherited, parse
from gardener.net.security import secure, within

HERE, AWAY = Address("127.0.0.1", 7000), Address("10.0.0.3", 7001)


def names(monkeypatch: pytest.MonkeyPatch, known: dict[str, list[str]]) -> None:
    """The names that resolve, and to what."""

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (each, port)) for each in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.3", False),
        ("169.254.1.1", False),
        ("fe80::1", False),
        ("no.such.name.invalid", False),
        ("a" * 70 + ".example", False),
    ],
)
def test_what_is_within_this_machine(host: str, inside: bool) -> None:
    assert within(Address(host, 7000)) is inside


def test_a_name_has_to_stand_for_loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, {"me": ["127.0.1.1"], "both": ["127.0.0.1", "10.0.0.3"], "none": []})
    found = [within(Address(name, 1)) for name in ("me", "both", "none")]
    assert found == [True, False, False]


@pytest.mark.parametrize(("host", "inside"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_an_inherited_socket_is_asked_where_it_listens(host: str, inside: bool) -> None:
    with socket.create_server((host, 0)) as sock:
        assert within(Inherited(sock.fileno())) is inside
        assert sock.getsockname()  # it is still open


@pytest.mark.parametrize(
    ("listen_at", "peer", "spare", "said"),
    [
        ("0.0.0.0:7000", HERE, HERE, "--listen 0.0.0.0:7000 can be reached from other mach"),
        ("127.0.0.1:7000", AWAY, HERE, "--peer 10.0.0.3:7001 is not known to be this machi"),
        ("127.0.0.1:7000", HERE, AWAY, "--spares 10.0.0.3:7001 is not known to be this mac"),
        ("127.0.0.1:7000", None, AWAY, "--spares 10.0.0.3:7001 is not known to be this mac"),
    ],
)
def test_other_machines_need_keys_or_to_be_trusted(
    listen_at: str, peer: Address | None, spare: Address, said: str
) -> None:
    told: list[str] = []
    places = {"listen_at": parse(listen_at), "peer": peer, "spares": (HERE, spare)}
    with pytest.raises(UserError) as caught:
        secure(None, False, "stage-1", say=told.append, **places)  # type: ignore[arg-type]
    assert str(caught.value).startswith(said)
    for way_out in ("--keys DIR", "`gardener keys init`", "--insecure"):
        assert way_out in str(caught.value)
    assert told == []
    assert secure(None, True, "stage-1", say=told.append, **places) is None  # type: ignore[arg-type]
    assert len(told) == 1
    assert "can read and change all prompts and answers" in told[0]


@pytest.mark.parametrize("insecure", [True, False])
def test_within_this_machine_nothing_is_said(insecure: bool) -> None:
    told: list[str] = []
    assert (
        secure(None, insecure, "holder", listen_at=HERE, peer=HERE, spares=(HERE,), say=told.append)
        is None
    )
    assert told == []


def test_keys_are_read_and_their_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, told = minted.made(tmp_path / "keys"), list[str]()
    far = Address("10.0.0.3", 7000)
    keys = secure(folder, False, "stage-2", listen_at=far, peer=far, spares=(far,), say=told.append)
    assert keys is not None
    assert keys.identity.name == "stage-2"
    assert told == []
    soon = keys.identity.until - 5 * 86400
    monkeypatch.setattr(time, "time", lambda: soon)
    secure(folder, False, "stage-2", listen_at=far, peer=far, spares=(far,), say=told.append)
    assert len(told) == 1
    assert "expires in 5 days" in told[0]


def test_keys_and_insecure_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--keys and --insecure contradict each other"):
        secure(tmp_path, True, "holder", listen_at=HERE, peer=HERE, spares=(HERE,), say=print)
