"""What a doctor may have seen, without a socket."""

from pathlib import Path
from typing import Any

import msgspec

from gardener.cluster.doctor.seen import Examined, Role, Seen, Target
from gardener.cluster.places import Cluster, HolderPlace, Place, StagePlace
from gardener.net.address import Address
from gardener.net.look import Unseen, View, Why
from gardener.protocol.messages import PROTOCOL, Card, Looked
from gardener.protocol.sight import Near, Sight

VERSION = "0.1"
LAYERS = 30
GIB = 2**30


def card(stage: int, first: int, end: int, **changes: Any) -> Card:
    plain = Card(
        stage, f"oak{stage}", VERSION, first, end, LAYERS, 16, "m:c", "float32", "none", 0,
        kv_slot=1000, kv_room=GIB, head_quant="none",
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def address(number: int) -> Address:
    """10.0.0.1 is the holder's."""
    return Address(f"10.0.0.{number + 1}", 7000)


def near(stage: int) -> Near:
    return Near(stage, str(address(stage)), 200, 0, 10**8)


def sight(number: int, stages: int, **changes: Any) -> Sight:
    """Of a stage that has its neighbours; nobody asks."""
    after = number % stages + 1 if number < stages else 0
    plain = Sight(
        10**15,
        upstream=near(number - 1) if number > 1 else None,
        downstream=near(after) if after else None,
        peer=str(address(after)),
        device="cpu",
        free=2 * GIB,
    )
    return msgspec.structs.replace(plain, **changes)


def view(shown: Card, seen: Sight, offset: float = 0.0) -> View:
    return View(Looked(PROTOCOL, shown, seen), offset, 0.001, 1e8)


def cluster(stages: int = 3, **changes: Any) -> Cluster:
    """Of stages with as many layers each."""
    share = LAYERS // stages
    places = tuple(
        StagePlace(
            address(n).host, 7000, number=n, layers=f"{(n - 1) * share}-{n * share - 1}", model="m"
        )
        for n in range(1, stages + 1)
    )
    made: dict[str, Any] = {
        "path": Path("/home/me/cluster.toml"), "name": "home", "model": "m", "revision": None,
        "draft": None, "keys": None, "insecure": True, "holder": HolderPlace("10.0.0.1", 7000),
        "stages": places,
    }  # fmt: skip
    return Cluster(**made | changes)


def stage(number: int, stages: int = 3, seen: View | Unseen | None = None, **more: Any) -> Examined:
    """As it should be, or `seen` like this. `more`: other fields of its card or its sight."""
    share = LAYERS // stages
    of_card = set(Card.__struct_fields__) - set(Sight.__struct_fields__)
    on_card = {name: more.pop(name) for name in list(more) if name in of_card}
    target = Target(Role.STAGE, number, address(number))
    place = {"first": (number - 1) * share, "end": number * share}
    shown = card(number, **place | on_card)
    return Examined(target, seen or view(shown, sight(number, stages, **more)))


def ring(*stages: Examined, of: Cluster | None = None, holder: str = "here", **more: Any) -> Seen:
    """`of`: the file that describes it. `holder`: whether it is `here` or `away`."""
    described = [
        Examined(_told(each, of.stages[at]), each.seen, each.here) if of else each
        for at, each in enumerate(stages)
    ]
    where: Place | None = of.holder if of else None
    target = Target(Role.HOLDER, 0, address(0), where if isinstance(where, HolderPlace) else None)
    end = Examined(target, Unseen(Why.REFUSED), here=holder == "here")
    return Seen(tuple(described), VERSION, holder=end, cluster=of, named="m", **more)


def _told(each: Examined, place: StagePlace) -> Target:
    return Target(each.target.role, each.target.number, each.target.address, place)
