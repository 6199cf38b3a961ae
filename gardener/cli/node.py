"""`gardener-node`: one stage of the model, between two neighbours."""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli import options as o
from gardener.cli.groups import RING
from gardener.cli.leash import wear
from gardener.cli.program import Interrupted, application, note, program, run
from gardener.cli.stage_options import StageOptions

if TYPE_CHECKING:  # it imports torch
    from gardener.stages.start import NodeSettings

app = application("gardener-node")


@Parameter(name="*", group=RING)
@dataclass(frozen=True)
class PlaceOptions:
    """Where the stage stands in the ring, and what it holds."""

    stage: Annotated[
        int,
        Parameter(
            env_var="GARDENER_STAGE",
            validator=Number(gte=1),
            metavar="N",
            help="Which stage this is; the first is 1.",
        ),
    ]
    peer: Annotated[
        str,
        Parameter(
            env_var="GARDENER_PEER",
            metavar="HOST:PORT",
            help="Where the next stage listens; for the last stage, the holder.",
        ),
    ]
    listen: o.Listen = "127.0.0.1:7000"
    stages: Annotated[
        int | None,
        Parameter(
            env_var="GARDENER_STAGES",
            validator=Number(gte=1),
            metavar="N",
            help="How many stages share the model.",
        ),
    ] = None
    layers: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_LAYERS",
            metavar="A-B",
            help="The layers of this stage, both included.",
        ),
    ] = None
    patience: o.PatienceSeconds = 600.0
    beside: Annotated[
        int, Parameter(show=False, help="Stages on this machine, which share its memory.")
    ] = 1


@app.default
def node(
    *,
    place: PlaceOptions,
    model: o.ModelOptions = o.ModelOptions(),
    computing: StageOptions = StageOptions(),
    no_view: o.NoView = False,
    leash: Annotated[bool, Parameter(show=False, help="End when standard input closes.")] = False,
    config: o.Config = None,
) -> None:
    """Hold one stage of a model and serve it to the ring.

    Start the stages in any order; each one finds its neighbour. Example, the second of three:

    gardener-node --stage 2 --stages 3 --listen 127.0.0.1:7002 --peer 127.0.0.1:7003
    """
    # Only here: these import torch, which `--help` and a wrong option do without.
    from gardener.cli.view import live
    from gardener.rings.cores import threads_for
    from gardener.stages.start import NodeSettings

    computing = replace(computing, threads=computing.threads or threads_for(1))
    settings = NodeSettings(**asdict(place), **asdict(model), **asdict(computing))
    try:
        run(_serve(settings, on_leash=leash, view=not no_view and live.possible()))
    except Interrupted:
        note(f"stage {settings.stage} ends")


async def _serve(settings: "NodeSettings", on_leash: bool, view: bool) -> None:
    """Until cancelled or let off the leash; under the live view if there is one."""
    from gardener.cli.view.node_watch import NodeWatch
    from gardener.stages.start import serve

    def say(line: str) -> None:
        note(f"stage {settings.stage}: {line}")

    if on_leash:
        wear()
    if not view:
        await serve(settings, say)
        return
    watch = NodeWatch(settings.stage, settings.device, settings.listen, settings.peer)
    async with watch.live:
        await serve(settings, say, watch.begin)


def main() -> None:
    """Entry point of `gardener-node`."""
    program(app)
