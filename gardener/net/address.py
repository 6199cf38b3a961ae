"""Where a stage listens or is dialled: HOST:PORT, [IPV6]:PORT, or an inherited socket."""

import contextlib
import errno
import ipaddress
import os
import socket
from typing import NamedTuple

from gardener.errors import UserError


class Address(NamedTuple):
    """A TCP address. `host` is a name, an IPv4 or an IPv6 address without its brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Inherited(NamedTuple):
    """A listening socket that the parent process opened and left at this file descriptor."""

    fd: int

    def __str__(self) -> str:
        return f"fd:{self.fd}"


def parse(text: str) -> Address | Inherited:
    """Read `HOST:PORT`, `[::1]:PORT` or `fd:N`. Raises UserError."""
    host, _, number = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or "/" in host or not (number.isascii() and number.isdigit()):
        raise UserError(f"{text!r} is not an address: {_advice(text.strip())}")
    if host == "fd":
        return Inherited(int(number))
    if int(number) > 65535:
        raise UserError(f"{text!r} is not an address: ports end at 65535")
    return Address(host, int(number))


def _advice(text: str) -> str:
    """How to write what somebody meant by this."""
    scheme, found, rest = text.partition("://")
    if found:
        bare = rest.partition("/")[0]
        return f"leave {scheme}:// away and write {bare if ':' in bare else f'{bare}:PORT'}"
    host, _, number = text.rpartition(":")
    if _ipv6(host) and number:
        return f"write an IPv6 one as [{host}]:{number}"
    if _ipv6(bare := text.strip("[]")):
        return f"the port is missing, write [{bare}]:PORT"
    return "write HOST:PORT, for instance 127.0.0.1:7000"


def _ipv6(host: str) -> ipaddress.IPv6Address | None:
    """The same as an address, if it is an IPv6 one."""
    with contextlib.suppress(ValueError):
        return ipaddress.IPv6Address(host)
    return None


def parse_peer(text: str) -> Address:
    """Read the address of a peer, which an inherited socket cannot be. Raises UserError."""
    address = parse(text)
    if isinstance(address, Inherited) or address.port == 0:
        raise UserError(f"{text!r} cannot be dialled: give the HOST:PORT where the peer listens")
    return address


def is_loopback(host: str) -> bool:
    """Whether it means the very machine that says it: `localhost`, or an address in figures;
    `::ffff:127.0.0.1` is one of IPv4."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # another name
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def of_peer(peername: object) -> str:
    """The address of the other end, as a transport gives it."""
    if isinstance(peername, tuple) and len(peername) >= 2:
        host = str(peername[0])
        address = _ipv6(host)  # of an IPv4 peer, where one socket listens for both
        mapped = address.ipv4_mapped if address else None
        return str(Address(str(mapped or host), int(peername[1])))
    return "an unknown address"


def inherited(place: Inherited) -> socket.socket:
    """The listening socket at a file descriptor. Raises UserError if there is none."""
    try:
        sock = socket.socket(fileno=place.fd)
    except OSError as error:
        raise UserError(f"{place} is no socket that this process inherited") from error
    tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    if not tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()  # not ours to close
        raise UserError(f"{place} is not a listening TCP socket")
    sock.setblocking(False)
    return sock


def every(place: Address) -> socket.socket | None:
    """A socket that listens at all addresses of this machine, of IPv4 too where the system allows
    that, if `place` is `[::]`; event loops open one for IPv6 alone. Raises OSError."""
    address = _ipv6(place.host)
    if address is None or not address.is_unspecified:
        return None
    sock = socket.create_server(
        place, family=socket.AF_INET6, dualstack_ipv6=socket.has_dualstack_ipv6()
    )
    sock.setblocking(False)
    return sock


def check_free(place: Address | Inherited, dials: str = "what dials it") -> None:
    """Raise UserError if nobody can listen at `place`: better now than after minutes of loading.
    `dials`: who has it as its --peer."""
    if isinstance(place, Inherited):
        return
    try:
        if sock := every(place):
            sock.close()
            return
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            with socket.socket(family, kind, protocol) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(address)
    except OSError as error:
        raise UserError(bind_problem(place, error, dials)) from error


def is_taken(error: UserError) -> bool:
    """Whether nobody can listen there because somebody does."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE


def bind_problem(place: Address, error: OSError, dials: str = "what dials it") -> str:
    """Why nobody can listen at `place`, and the way out. `dials`: who has it as its --peer, and
    would go on to dial the old port."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"{place} is in use: stop what listens there, or choose another port and start {dials} "
            "anew with that as its --peer"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{place} is no address of this machine: choose one of its own, or 127.0.0.1"
    if error.errno == errno.EACCES:
        return f"{place} needs privileges: choose a port from 1024 on"
    if isinstance(error, socket.gaierror):
        return f"{place.host} is no name that is known: give --listen an address of this machine"
    return f"cannot listen at {place}: {failure(error)}"


ABSENT = "connection refused, nothing listens there (start it, or correct the address)"
"""Why nobody could be reached at an address of a machine that is there."""


def failure(error: BaseException) -> str:
    """Why an operation on a socket failed, for people."""
    if isinstance(error, ConnectionRefusedError):
        return ABSENT
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, socket.gaierror):
        return "no machine of this name is known: correct it (--peer, or host in the cluster file)"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
