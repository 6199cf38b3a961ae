"""Options of every command that has a place in a ring: who steps in for its next neighbour."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli.groups import RING
from gardener.net.spares import SPARE_AFTER


@Parameter(name="*", group=RING)
@dataclass(frozen=True)
class SpareOptions:
    """Who steps in the place of the next stage."""

    spares: Annotated[
        str,
        Parameter(
            env_var="GARDENER_SPARES",
            metavar="HOST:PORT,...",
            help="Where spares listen, which step in the place of the next stage if it stays away "
            "(for a command that asks, of stage 1): one at a time, in this order.",
        ),
    ] = ""
    spare_after: Annotated[
        float,
        Parameter(
            env_var="GARDENER_SPARE_AFTER",
            validator=Number(gte=1.0),
            metavar="SECONDS",
            help="How long a lost stage is waited for before the first spare is asked. While that "
            "loads no other is; if it does not step in, the next one is asked so much later.",
        ),
    ] = SPARE_AFTER
