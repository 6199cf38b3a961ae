"""`gardener-node`: one stage of the model, between two neighbours."""

from typing import Annotated

import typer

from gardener.cli import options as o
from gardener.cli.program import Interrupted, note, program, run

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
    from gardener.cli.serve import NodeSettings, serve, watched
    from gardener.local import threads_for
    from gardener.view import live

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
        leash=leash,
        view=not no_view and live.possible(),
    )
    try:
        run(watched(settings) if settings.view else serve(settings))
    except Interrupted:
        note(f"stage {stage} ends")


def main() -> None:
    """Entry point of `gardener-node`."""
    program(app)
