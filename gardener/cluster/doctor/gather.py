"""Looks at everybody at once, from this machine, in seconds."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import psutil

import gardener
from gardener.cluster.doctor.own_keys import OwnKeys, own_keys
from gardener.cluster.doctor.seen import Examined, Role, Seen, Target
from gardener.cluster.doctor.standing_in import with_spares
from gardener.cluster.places import Cluster
from gardener.errors import GardenerError, UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.parts import HOLDER
from gardener.model.checkpoint.resolve import BUILT_IN, home, resolve
from gardener.model.checkpoint.tensors import fingerprint
from gardener.net.address import Address, check_free, is_loopback, parse, parse_peer
from gardener.net.look import STEP, look

SETTLES = 1.5
"""Seconds after which a stage has dialled the next one again: what was in the way may be gone."""

MOST_STAGES = 64
"""Stages that are followed from one to the next, at most."""


@dataclass(frozen=True)
class Wanted:
    """What was said on the command line.

    file   how a command names the cluster file, see `Seen`
    model  the holder's, if it is not the file's
    keys   the folder, if it is not the file's
    """

    file: str = ""
    model: str = ""
    keys: Path | None = None


async def of_cluster(cluster: Cluster, wanted: Wanted) -> Seen:
    """Everybody in a cluster file."""
    targets = [
        *(Target(Role.STAGE, each.number, each.address, each) for each in cluster.stages),
        *(Target(Role.SPARE, each.number, each.address, each) for each in cluster.spares),
        Target(Role.HOLDER, 0, cluster.holder.address, cluster.holder),
    ]
    places = await asyncio.gather(*(_is_here(target.address) for target in targets))
    ours = [each.certificate for each, here in zip(targets, places, strict=True) if here]
    own = own_keys(wanted.keys or cluster.keys, ours)
    found = await asyncio.gather(*(_examine(target, own) for target in targets))
    stages, spares = len(cluster.stages), len(cluster.spares)
    seen = Seen(
        await _settled(found[:stages], own),
        gardener.__version__,
        holder=found[-1],
        cluster=cluster,
        file=wanted.file,
        own=own,
        named=wanted.model or cluster.model,
    )
    seen = with_spares(seen, found[stages : stages + spares])
    return await asyncio.to_thread(_at_the_holder, seen)


async def of_peers(peers: Sequence[Address], wanted: Wanted) -> Seen:
    """Stages at these addresses, in the order of the ring; from the last one of them on, whoever
    each of them dials."""
    own = own_keys(wanted.keys, ())
    first = (_examine(Target(Role.STAGE, 0, peer), own) for peer in peers)
    stages = list(await asyncio.gather(*first))
    while len(stages) < MOST_STAGES and (place := _next(stages[-1])) is not None:
        if any(place == node.target.address for node in stages):
            break
        stages.append(await _after(stages[-1], place, own))
    holder = _peer_of(stages[-1])
    seen = Seen(
        await _settled(stages, own),
        gardener.__version__,
        holder=None if holder is None else await _examine(Target(Role.HOLDER, 0, holder), own),
        own=own,
        named=wanted.model,
    )
    return await asyncio.to_thread(_at_the_holder, seen)


async def _after(before: Examined, place: Address, own: OwnKeys) -> Examined:
    """The stage after this one: where that dials it, or else where it has its link to, as to a
    spare."""
    target = Target(Role.STAGE, before.number + 1, place)
    found = await _examine(target, own)
    near = before.sight.downstream if before.sight else None
    if found.unseen is None or near is None or near.stage != target.number:
        return found
    other = _as_from_here(before, near.where)
    spare = found if other is None else await _examine(replace(target, address=other), own)
    return spare if spare.unseen is None else found


async def _settled(stages: Sequence[Examined], own: OwnKeys) -> tuple[Examined, ...]:
    """The same, looked at once more where one that serves has no link to the next one, which is
    there: they may only just have been started."""
    pairs = pairwise(stages)
    if not any(_serves(one) and _serves(other) and not _is_linked(one) for one, other in pairs):
        return tuple(stages)
    await asyncio.sleep(SETTLES)
    return tuple(await asyncio.gather(*(_examine(each.target, own) for each in stages)))


def _serves(node: Examined) -> bool:
    return node.sight is not None and not node.sight.does


def _is_linked(node: Examined) -> bool:
    return node.sight is not None and node.sight.downstream is not None


def _next(node: Examined) -> Address | None:
    """Where the stage after this one is; None: there is none, or nobody says where."""
    if node.ready is None or node.ready.end == node.ready.layers:
        return None
    return _peer_of(node)


def _peer_of(node: Examined) -> Address | None:
    """Whom a stage dials, as it would be dialled from here."""
    return _as_from_here(node, node.sight.peer) if node.sight else None


def _as_from_here(node: Examined, where: str) -> Address | None:
    """An address that a node knows, as it would be dialled from here; None: it is none."""
    try:
        place = parse_peer(where)
    except UserError:
        return None
    # What is on its own machine, it may dial there by an address that means another one here.
    return Address(node.target.address.host, place.port) if is_loopback(place.host) else place


async def _examine(target: Target, own: OwnKeys) -> Examined:
    seen, here = await asyncio.gather(look(target.address, own.keys), _is_here(target.address))
    return Examined(target, seen, here)


async def _is_here(place: Address) -> bool:
    """Whether it is an address of this machine."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(STEP):
            found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    mine = own_addresses()
    return any(_bare(str(each[4][0])) in mine or is_loopback(str(each[4][0])) for each in found)


def own_addresses() -> set[str]:
    """The addresses of this machine."""
    families = (socket.AF_INET, socket.AF_INET6)
    networks = psutil.net_if_addrs().values()
    return {
        _bare(each.address) for all_of in networks for each in all_of if each.family in families
    }


def _bare(address: str) -> str:
    """Without the network card that it is reached through."""
    return str(ipaddress.ip_address(address.partition("%")[0]))


def _at_the_holder(seen: Seen) -> Seen:
    """What can be looked at only where the holder is to run: its model, and its port."""
    holder = seen.holder
    if holder is None:
        return replace(seen, unread="nobody says where the holder is")
    if not holder.here:
        return replace(seen, unread="this is not the holder's machine")
    taken = ""
    if holder.card is None:
        try:
            check_free(parse(_listens_at(seen, holder)), "the last stage")
        except UserError as error:
            taken = str(error)
    if not seen.named:
        return replace(seen, taken=taken, unread="nobody has said which one it is (--model)")
    return _model_here(replace(seen, taken=taken))


def _listens_at(seen: Seen, holder: Examined) -> str:
    place = seen.cluster.holder.listens_at if seen.cluster else None
    return place or str(holder.target.address)


def _model_here(seen: Seen) -> Seen:
    """With what the holder's model tells, if it is on this machine. Nothing is fetched for this."""
    name = seen.named
    here = Path(name).expanduser().exists()
    if not here and not (name in BUILT_IN and (home() / "models" / f"{name}.gguf").exists()):
        return replace(seen, unread=f"{name} is not on this machine yet")
    try:
        folder = resolve(name, part=HOLDER)
        made_for = Architecture.read(folder).context
        return replace(seen, model=fingerprint(folder), made_for=made_for)
    except (GardenerError, OSError) as error:
        return replace(seen, unread=str(error))
