"""What links are secured with, and where they may go without: only within this machine, unless
somebody says that all the others are trusted."""

import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from gardener.errors import UserError
from gardener.net.address import Address, Inherited, inherited, is_loopback
from gardener.net.keys import Keys, read_keys


def secure(
    folder: Path | None,
    insecure: bool,
    name: str,
    *,
    listen_at: Address | Inherited,
    peer: Address | None,
    spares: Iterable[Address],
    say: Callable[[str], None],
) -> Keys | None:
    """The keys of `name` (`holder`, `stage-2`, `spare-1`) in a folder; None: links without.

    Without keys `listen_at` and all that may be dialled (`peer`, `spares`) have to be this machine,
    unless `insecure`: then `say` is told what that means. A spare has no `peer` yet. May wait for a
    name to be looked up, which counts as it is now. Raises UserError with one sentence.
    """
    if folder is None:
        dialled = [] if peer is None else [("--peer", peer)]
        dialled += [("--spares", spare) for spare in spares]
        _check_exposed(insecure, listen_at, dialled, say)
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
    dialled: Iterable[tuple[str, Address]],
    say: Callable[[str], None],
) -> None:
    """Without keys: raise UserError, or say what it means, if others come near the link. `dialled`:
    with the options that name them."""
    where: Address | Inherited
    if not within(listen_at):
        where, what = listen_at, f"--listen {listen_at} can be reached from other machines"
        way_out = "listen at 127.0.0.1"
    elif away := next(((option, each) for option, each in dialled if not within(each)), None):
        option, where = away
        what = f"{option} {where} is not known to be this machine"
        way_out = f"name one on this machine with {option}"
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
            return is_loopback(str(sock.getsockname()[0]))
        finally:
            sock.detach()  # it is used later
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(is_loopback(str(address[0])) for *_, address in found)
