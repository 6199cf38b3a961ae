"""`gardener doctor`: what is wrong with a cluster, in order, and the commands that mend it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gardener.cli import options as o
from gardener.cli.cluster_options import NAME, ClusterFile, usual_place
from gardener.cli.groups import MODEL, RING
from gardener.cli.program import Misuse, result, run
from gardener.cluster.file import read_cluster
from gardener.net.address import parse_peer

if TYPE_CHECKING:  # it takes numpy
    from gardener.cluster.doctor.seen import Seen

Peers = Annotated[
    tuple[str, ...],
    Parameter(
        group=RING,
        env_var="GARDENER_RING",
        metavar="HOST:PORT",
        help="Instead of a file: where stage 1 listens. The others are found from there; those "
        "that are not can be given too, in the order of the ring.",
    ),
]
Model = Annotated[
    str | None,
    Parameter(
        group=MODEL,
        env_var="GARDENER_MODEL",
        help="The holder's model, to hold the stages to. Default: the file's; nothing is fetched.",
    ),
]


KeysFolder = Annotated[
    Path | None,
    Parameter(
        group=RING,
        env_var="GARDENER_KEYS",
        metavar="DIR",
        help="The keys of this machine, as `gardener keys init` makes them. Default: the file's.",
    ),
]


def doctor(
    *,
    cluster: ClusterFile = None,
    peer: Peers = (),
    keys: KeysFolder = None,
    model: Model = None,
    as_json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Look at every machine of a ring, and say what is wrong and what mends it.

    Nothing is changed, and a ring at work is not disturbed. What is to be mended first comes first.
    Exits with 1 if something is wrong, or not ready yet.

    gardener doctor --cluster cluster.toml

    gardener doctor --peer 10.0.0.2:7001
    """
    # Only here: it takes numpy, which `--help` and a wrong option do without.
    from gardener.cli.doctor_report import as_record, show
    from gardener.cluster.doctor.examine import examine
    from gardener.cluster.doctor.finding import well

    seen = run(_look(cluster, peer, keys, model or ""))
    findings = examine(seen)
    if as_json:
        result(json.dumps(as_record(seen, findings), indent=2) + "\n")
    else:
        show(seen, findings)
    if not well(findings):
        raise SystemExit(1)


async def _look(
    cluster: ClusterFile, peers: tuple[str, ...], keys: KeysFolder, model: str
) -> "Seen":
    """Raises UserError for a file or an address that is none."""
    from gardener.cluster.doctor.gather import Wanted, of_cluster, of_peers

    if cluster is not None and peers:
        raise Misuse("--cluster and --peer exclude each other: the file says where the stages are")
    if peers:
        return await of_peers([parse_peer(each) for each in peers], Wanted("", model, keys))
    if cluster is None:
        raise Misuse(
            f"there is no {NAME} here or in {usual_place().parent}: say which ring to look at, "
            "with --cluster FILE or --peer HOST:PORT of stage 1"
        )
    return await of_cluster(read_cluster(cluster), Wanted(_named(cluster), model, keys))


def _named(cluster: Path) -> str:
    """How a command names the file; empty where it finds it by itself."""
    path = cluster.absolute()
    return "" if path in (Path(NAME).absolute(), usual_place()) else str(path)
