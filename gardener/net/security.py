"""What links are secured with, and where they may go without: only within this machine, unless
somebody says that all the others are trusted."""

import ipaddress
import socket
import time
from collections.abc import Callable
from pathlib import Path

from gardener.errors import UserError
from gardener.net.address import Address, Inherited, inherited
from gardener.net.keys import Keys, read_keys


def secure(
    folder: Path | None,
    insecure: bool,
    name: str,
    *,
    listen_at: Address | Inherited,
    peer: Address | None,
    say: Callable[[str], None],
) -> Keys | None:
    """The keys of `name` (`holder`, `stage-2`, `spare-1`) in a folder; None: links without.

    Without keys `listen_at` and `peer` have to be this machine, unless `insecure`: then `say` is
    told what that means. A spare has no `peer` yet. May wait for a name to be looked up. Raises
    UserError with one sentence.
    """
    if folder is None:
        _check_exposed(insecure, listen_at, peer, say)
        return None
    if insecure:
        raise UserError(
            "--keys and --insecure contradict each other: leave --insecure out, the links are "
            "secured with the keys"
        )
    now = time.time()
    keys = read_keys(folder.expanduser(), name, now)
    if warning := keys.warning(now):
        say(warning)
    return keys


def _check_exposed(
    insecure: bool,
    listen_at: Address | Inherited,
    peer: Address | None,
    say: Callable[[str], None],
) -> None:
    """Without keys: raise UserError, or say what it means, if others come near the link."""
    if not within(listen_at):
        where, what = listen_at, f"--listen {listen_at} can be reached from other machines"
        way_out = "listen at 127.0.0.1"
    elif peer is not None and not within(peer):
        where, what = peer, f"--peer {peer} is not known to be this machine"
        way_out = "take a --peer on this machine"
    else:
        return
    if not insecure:
        raise UserError(
            f"{what}, and without keys links stay within this one: give --keys DIR (`gardener keys "
            f"init` makes it), {way_out}, or give --insecure if you trust every machine in between"
        )
    say(
        f"--insecure: whoever can reach {where}, or the network between, can read and change all "
        "prompts and answers, and nobody is asked who they are"
    )


def within(place: Address | Inherited) -> bool:
    """Whether only this machine can be at this address, or reach a socket that listens there.

    A name has to stand for addresses of loopback alone; one that nobody knows does not count."""
    if isinstance(place, Inherited):
        sock = inherited(place)
        try:
            return _is_loopback(str(sock.getsockname()[0]))
        finally:
            sock.detach()  # it is used later
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(_is_loopback(str(address[0])) for *_, address in found)


def _is_loopback(host: str) -> bool:
    """Of an address in figures; `::ffff:127.0.0.1` is one of IPv4."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
