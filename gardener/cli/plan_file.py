"""`gardener plan` of a cluster whose stages do not run: what its file alone tells."""

import asyncio
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from gardener.cli.program import result, run
from gardener.cluster.places import Cluster, StagePlace
from gardener.cluster.plan.unmeasured import Needs, needs
from gardener.net.address import Address
from gardener.rings.equipment import holder_folder
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import bare_span

SOON = 2.0
"""Seconds in which a stage that runs takes a connection."""

GIB = 2**30

TEXT = 1024
"""Tokens for which the memory of keys and values is told."""

WIDE = 120
"""Columns."""


def silent(cluster: Cluster) -> list[StagePlace]:
    """The stages that nobody reaches."""

    async def ask() -> list[bool]:
        return await asyncio.gather(*(_answers(stage.address) for stage in cluster.stages))

    pairs = zip(cluster.stages, run(ask()), strict=True)
    return [stage for stage, answered in pairs if not answered]


async def _answers(address: Address) -> bool:
    try:
        async with asyncio.timeout(SOON):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


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
        result(json.dumps({"cluster": str(cluster.path), "stages": stages, "silent": silent_ones}))
        result("\n")
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
