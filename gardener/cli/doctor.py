"""`gardener doctor`: what is wrong with a cluster, in order, and the commands that mend it."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gardener.cli import options as o
from gardener.cli.groups import RING
from gardener.cli.program import Misuse, result, run

if TYPE_CHECKING:  # late: it takes numpy
    from gardener.cluster.doctor.seen import Seen


def doctor(
    *,
    cluster: Annotated[
        Path | None,
        Parameter(group=RING, env_var="GARDENER_CLUSTER", metavar="FILE", help="The cluster file."),
    ] = None,
    peer: Annotated[
        tuple[str, ...],
        Parameter(
            group=RING,
            metavar="HOST:PORT",
            help="Instead of a file: where stage 1 listens. The others are found from there; those "
            "that are not, may be given in their order.",
        ),
    ] = (),
    model: o.ModelOptions = o.ModelOptions(),
    as_json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Look at every machine of a cluster, and say what is wrong and what mends it.

    Nothing is changed, and a ring at work is not disturbed. What comes first is to be mended first.
    Exits with 1 if something is wrong or has to be waited for.

    gardener doctor --cluster cluster.toml

    gardener doctor --peer 10.0.0.2:7001
    """
