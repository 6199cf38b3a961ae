"""`gardener plan` of a cluster whose stages do not run: what its file alone tells."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gardener.cli.program import result
from gardener.cluster.doctor.own_keys import own_keys
from gardener.cluster.places import Cluster, StagePlace
from gardener.cluster.plan.unmeasured import Needs, needs
from gardener.net.look import Unseen, View, Why, look
from gardener.rings.equipment import holder_folder
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import bare_span

AWAY = (Why.NAME, Why.REFUSED, Why.TIMEOUT, Why.NETWORK, Why.SILENT)
"""Why a stage is not there. Where it, or another one, is there and will not be looked at, opening
the ring says what is wrong with it."""

GIB = 2**30

TEXT = 1024
"""Tokens for which the memory of keys and values is told."""

WIDE = 120
"""Columns."""


async def silent(cluster: Cluster, folder: Path | None) -> list[StagePlace]:
    """The stages that nobody reaches, nor a spare in their place. `folder`: of the keys with which
    they are looked at, whosever it has."""
    keys = own_keys(folder, ()).keys
    nodes = (*cluster.stages, *cluster.spares)
    found = await asyncio.gather(*(look(each.address, keys, measure=False) for each in nodes))
    count = len(cluster.stages)
    replaced = {each.looked.card.stage for each in found[count:] if isinstance(each, View)}
    return [
        stage
        for stage, seen in zip(cluster.stages, found[:count], strict=True)
        if isinstance(seen, Unseen) and seen.why in AWAY and stage.number not in replaced
    ]


def tell_file(
    cluster: Cluster, missing: Sequence[StagePlace], settings: RingSettings, as_json: bool
) -> None:
    """Print what the file tells. Raises UserError for a model that is not here, or has no such
    layers."""
    from gardener.model.architecture import Architecture  # late: it imports torch

    shape = Architecture.read(holder_folder(settings, lambda line: None))
    found = needs(cluster, shape)
    if as_json:
        stages = [each.facts() for each in found]
        silent_ones = [each.number for each in missing]
        record = {"measured": False, "cluster": str(cluster.path), "stages": stages}
        result(json.dumps(record | {"silent": silent_ones}) + "\n")
        return
    console = Console(width=WIDE, highlight=False)
    console.print(_table(found))
    whom = " and ".join(str(each) for each in missing)
    for line in (
        f"\n{whom} {'does' if len(missing) == 1 else 'do'} not answer, so no speed is known: this "
        f"is what {cluster.path} tells, for layers {_how(cluster)}.",
        "Start the stages, then plan again:",
        *(f"  gardener-node --stage {each.number}    # at {each.address}" for each in missing),
        "  gardener plan",
    ):
        console.print(line, markup=False, soft_wrap=True)


def _how(cluster: Cluster) -> str:
    given = any(each.layers is not None for each in cluster.stages)
    return "as they stand there" if given else "shared out evenly by their sizes"


def _table(found: Sequence[Needs]) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(
        ("", "address", "device", "holds", "weights, GiB", f"and for {TEXT} tokens, GiB")
    ):
        table.add_column(name, justify="right" if number > 2 else "left")
    for each in found:
        table.add_row(
            f"stage {each.place.number}",
            str(each.place.address),
            each.place.device,
            bare_span(each.held.first, each.held.end),
            f"{each.weights / GIB:.2f}",
            f"{TEXT * each.token / GIB:.3f}",
        )
    return table
