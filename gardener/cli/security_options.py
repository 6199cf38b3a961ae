"""Options of every command that has a place in a ring: what its links are secured with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gardener.cli.groups import RING
from gardener.cli.program import flag


@Parameter(name="*", group=RING)
@dataclass(frozen=True)
class SecurityOptions:
    """How links to other machines are secured. Those of a --local ring stay within this one."""

    keys: Annotated[
        Path | None,
        Parameter(
            env_var="GARDENER_KEYS",
            metavar="DIR",
            help="Our certificate and key, and the CA by which the others are known, as `gardener "
            "keys init` makes them: links are encrypted, and both ends prove who they are. Without "
            "it, links stay within this machine.",
        ),
    ] = None
    insecure: Annotated[
        bool,
        flag(
            env_var="GARDENER_INSECURE",
            help="Without keys, allow links to other machines: whoever can reach them can read and "
            "change everything.",
        ),
    ] = False
