"""`gardener-node`: one stage of the model, between two neighbours."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli import options as o
from gardener.cli.cluster_options import ClusterFile
from gardener.cli.groups import RING
from gardener.cli.leash import wear
from gardener.cli.logs import begin_logs
from gardener.cli.program import (
    CLUSTER_SAYS,
    Interrupted,
    Misuse,
    application,
    command_line,
    note,
    program,
    run,
)
from gardener.cli.security_options import SecurityOptions
from gardener.cli.spare_options import SpareOptions
from gardener.cli.stage_options import StageOptions
from gardener.errors import UserError
from gardener.runtime.logs import few

if TYPE_CHECKING:  # it imports torch
    from gardener.stages.node import StageNode
    from gardener.stages.phases import Phases
    from gardener.stages.settings import NodeSettings

app = application("gardener-node")

WITHOUT = "--metrics needs a package that is not installed: pip install 'gardener-node[metrics]'"


@Parameter(name="*", group=RING)
@dataclass(frozen=True)
class PlaceOptions:
    """Where the stage stands in the ring, and what it holds."""

    stage: Annotated[
        int | None,
        Parameter(
            env_var="GARDENER_STAGE",
            validator=Number(gte=1),
            metavar="N",
            help="Which stage this is; the first is 1.",
        ),
    ] = None
    spare: Annotated[
        int | None,
        Parameter(
            env_var="GARDENER_SPARE",
            validator=Number(gte=1),
            metavar="N",
            help="Instead of --stage: stand by, and step in the place of a stage that stays away. "
            "Spares count from 1.",
        ),
    ] = None
    peer: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_PEER",
            metavar="HOST:PORT",
            help="Where the next stage listens; for the last stage, the holder.",
        ),
    ] = None
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

    def place(self) -> dict[str, Any]:
        """As settings of a node. Raises Misuse unless it is said where it stands."""
        if (self.stage is None) == (self.spare is None):
            raise Misuse(
                "say which stage this is with --stage N, or --spare N of one that stands by"
            )
        if self.stage is not None and self.peer is None:
            raise Misuse(
                "say where the next stage listens with --peer HOST:PORT; for the last stage, "
                f"where the holder does{CLUSTER_SAYS}"
            )
        return {**asdict(self), "stage": self.stage or 0, "peer": self.peer or ""}


@app.default
def node(
    *,
    place: PlaceOptions = PlaceOptions(),
    model: o.ModelOptions = o.ModelOptions(),
    security: SecurityOptions = SecurityOptions(),
    spares: SpareOptions = SpareOptions(),
    computing: StageOptions = StageOptions(),
    metrics: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_METRICS",
            metavar="[HOST:]PORT",
            help="Where Prometheus may read figures of this node, at /metrics, without a key. "
            "Without a HOST only from this machine.",
        ),
    ] = None,
    log_format: o.LogFormat = "text",
    no_view: o.NoView = False,
    leash: Annotated[bool, Parameter(show=False, help="End when standard input closes.")] = False,
    cluster: ClusterFile = None,
    config: o.Config = None,
) -> None:
    """Hold one stage of a model and serve it to the ring.

    Start the stages in any order; each one finds its neighbour. Example, the second of three:

    gardener-node --stage 2 --stages 3 --listen 127.0.0.1:7002 --peer 127.0.0.1:7003
    """
    # Only here: `--help` and a wrong option do without.
    from gardener.cli.view import live
    from gardener.rings.cores import threads_for
    from gardener.stages.settings import NodeSettings

    where = place.place()
    begin_logs(log_format, stage=where["stage"])
    computing = replace(computing, threads=computing.threads or threads_for(1))
    settings = NodeSettings(
        **where,
        **asdict(security),
        **asdict(spares),
        **asdict(model),
        **asdict(computing),
        command="" if leash else command_line("gardener-node"),
    )
    view = not no_view and log_format == "text" and live.possible()
    try:
        run(_serve(settings, on_leash=leash, view=view, metrics=metrics))
    except Interrupted:
        note(f"{settings.who} ends")


async def _serve(settings: "NodeSettings", on_leash: bool, view: bool, metrics: str | None) -> None:
    """Until cancelled or let off the leash; under the live view if there is one."""
    from gardener.cli.view.node_watch import NodeWatch
    from gardener.stages.phases import Phases
    from gardener.stages.serve import serve

    say = few(lambda line: note(f"{settings.who}: {line}"))

    if on_leash:
        wear()
    phases = Phases(settings.stage, spare=settings.spare)
    async with contextlib.AsyncExitStack() as stack:
        watchers: list[Callable[[StageNode], None]] = []
        if metrics is not None:
            watchers.append(stack.enter_context(_metrics(metrics, phases, say)))
        if view:
            watch = NodeWatch(phases, settings.device, settings.listen, settings.peer)
            await stack.enter_async_context(watch.live)
            watchers.append(watch.begin)

        def begin(node: "StageNode") -> None:
            for each in watchers:
                each(node)

        await serve(settings, say, begin, phases)


@contextlib.contextmanager
def _metrics(
    where: str, phases: "Phases", say: Callable[[str], None]
) -> "Iterator[Callable[[StageNode], None]]":
    """Serve them; what gives is to be told of the node. Raises UserError."""
    try:
        from gardener.metrics.endpoint import node_metrics
    except ModuleNotFoundError as error:
        raise UserError(WITHOUT) from error
    with node_metrics(where, phases) as (collector, address):
        say(f"metrics at http://{address}/metrics")
        yield collector.begin


def main() -> None:
    """Entry point of `gardener-node`."""
    program(app)
