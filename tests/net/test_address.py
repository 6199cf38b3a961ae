"""How addresses are written, and where one can listen."""

import contextlib
import socket

import pytest

from gardener.errors import UserError
from gardener.net.address import Address, check_free, every, is_loopback, of_peer, parse, parse_peer


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("http://127.0.0.1:7101", "leave http:// away and write 127.0.0.1:7101"),
        ("https://oak:7101/v1", "leave https:// away and write oak:7101"),
        ("tcp://oak", "leave tcp:// away and write oak:PORT"),
        ("http://[::1]:7101/", "leave http:// away and write [::1]:7101"),
        ("::1:7000", "write an IPv6 one as [::1]:7000"),
        ("fe80::1%eth0:7000", "write an IPv6 one as [fe80::1%eth0]:7000"),
        ("::1", "the port is missing, write [::1]:PORT"),
        ("[::1]", "the port is missing, write [::1]:PORT"),
        ("oak:pine:7000", "write HOST:PORT, for instance 127.0.0.1:7000"),
        ("127.0.0.1:7000/", "write HOST:PORT, for instance 127.0.0.1:7000"),
        ("", "write HOST:PORT, for instance 127.0.0.1:7000"),
    ],
)
def test_advice_is_about_what_was_meant(text: str, advice: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_peer(text)
    assert str(caught.value) == f"{text!r} is not an address: {advice}"


def test_every_address_is_free_only_if_those_of_ipv4_are_too() -> None:
    with contextlib.closing(everywhere(0)) as sock:
        port = sock.getsockname()[1]
    place = parse(f"[::]:{port}")
    check_free(place)
    with socket.create_server(("127.0.0.1", port)):
        why = "in use: .* and start stage 2 anew with that as its --peer"
        with pytest.raises(UserError, match=why):
            check_free(place, "stage 2")
    check_free(place)


def test_every_address_takes_ipv4_too() -> None:
    with contextlib.closing(everywhere(0)) as sock:
        socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=10).close()
    assert [every(Address(host, 0)) for host in ("::1", "0.0.0.0", "oak")] == [None] * 3


def everywhere(port: int) -> socket.socket:
    sock = every(Address("::", port))
    assert sock is not None
    return sock


def test_an_ipv4_peer_is_named_as_such_whatever_heard_it() -> None:
    assert of_peer(("::ffff:192.0.2.1", 7, 0, 0)) == of_peer(("192.0.2.1", 7)) == "192.0.2.1:7"
    assert of_peer(("2001:db8::1", 7, 0, 0)) == "[2001:db8::1]:7"
    assert of_peer(("fe80::1%eth0", 7, 0, 2)) == "[fe80::1%eth0]:7"


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        *((each, True) for each in ("localhost", "LOCALHOST", "127.8.9.1", "::1", "::1%lo")),
        ("::ffff:127.0.0.1", True),
        *((each, False) for each in ("oak", "", "0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1")),
    ],
)
def test_what_means_this_machine(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside
