"""`gardener-node`: one stage of the model, between two neighbours."""

from typing import TYPE_CHECKING, Annotated

import typer

from gardener.cli import options as o
from gardener.cli.leash import wear
from gardener.cli.program import Interrupted, note, program, run

if TYPE_CHECKING:  # it imports torch
    from gardener.stages.start import NodeSettings

app = typer.Typer(
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)

StageOption = Annotated[
    int, typer.Option(envvar="GARDENER_STAGE", min=1, help="Which stage this is; the first is 1.")
]
PeerOption = Annotated[
    str,
    typer.Option(
        envvar="GARDENER_PEER",
        metavar="HOST:PORT",
        help="Where the next stage listens; for the last stage, the holder.",
    ),
]
StagesOption = Annotated[
    int | None,
    typer.Option(envvar="GARDENER_STAGES", min=1, help="How many stages share the model."),
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        envvar="GARDENER_LAYERS", metavar="A-B", help="The layers of this stage, both included."
    ),
]
LeashOption = Annotated[
    bool, typer.Option("--leash", hidden=True, help="End when standard input closes.")
]


@app.command(name="node")
def node(
    stage: StageOption,
    peer: PeerOption,
    listen: o.Listen = "127.0.0.1:7000",
    model: o.Model = o.DEFAULT_MODEL,
    revision: o.Revision = None,
    stages: StagesOption = None,
    layers: LayersOption = None,
    dtype: o.DType = "float32",
    device: o.Device = "cpu",
    threads: o.Threads = None,
    quant: o.Quant = "none",
    patience: o.Patience = 600.0,
    no_view: o.NoView = False,
    leash: LeashOption = False,
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

    settings = NodeSettings(
        stage=stage,
        peer=peer,
        listen=listen,
        model=model,
        revision=revision,
        stages=stages,
        layers=layers,
        dtype=dtype,
        device=device,
        threads=threads or threads_for(1),
        quant=quant,
        patience=patience,
    )
    try:
        run(_serve(settings, on_leash=leash, view=not no_view and live.possible()))
    except Interrupted:
        note(f"stage {stage} ends")


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
