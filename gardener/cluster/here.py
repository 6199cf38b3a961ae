"""Whether a place of a cluster is on this machine."""

import errno
import ipaddress
import socket
from contextlib import suppress

from gardener.cluster.places import Cluster, Place
from gardener.errors import UserError
from gardener.net.address import is_loopback


def check_here(cluster: Cluster, title: str, place: Place) -> None:
    """Raise UserError where nobody here can listen at the place that [title] names, or where others
    would not reach who does. A place that says where it listens has thought of that."""
    if place.listen is not None:
        return
    found = _addresses(place.host)
    if found and not is_loopback(place.host) and all(is_loopback(each) for each in found):
        raise UserError(
            f"{cluster.path}: [{title}]: {place.host} means {found[0]} on this machine, where no "
            f"other one could reach it: write the address instead of the name, or add listen = "
            f'"0.0.0.0:{place.port}"'
        )
    if found and not any(_is_here(each) for each in found):
        raise UserError(
            f"{cluster.path}: [{title}] is at {place.host}, which is no address of this machine"
            f"{_who_is(cluster)}: start it there, correct host, or, if this machine is reached "
            f'under that address through another one, add listen = "0.0.0.0:{place.port}"'
        )


def _who_is(cluster: Cluster) -> str:
    """What this machine is in the cluster, in a half sentence."""
    places: list[tuple[str, Place]] = [(f"stage {each.number}", each) for each in cluster.stages]
    places += [(f"spare {each.number}", each) for each in cluster.spares]
    places.append(("the holder", cluster.holder))
    ours = [name for name, each in places if _numeric(each.host) and _is_here(each.host)]
    return f" (it is that of {' and '.join(ours)})" if ours else ""


def _numeric(host: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def _addresses(host: str) -> list[str]:
    """Those that a name has; none if it is not known, which is said where it is used."""
    with suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))
    return []


def _is_here(address: str) -> bool:
    """Whether a socket can be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError, UnicodeError), socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True
