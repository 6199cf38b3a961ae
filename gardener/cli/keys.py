"""`gardener keys`: the keys of a cluster, made, added to and shown."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number

from gardener.cli import options as o
from gardener.cli.cluster_options import ClusterFile
from gardener.cli.program import Misuse, note, result
from gardener.cluster.file import read_cluster
from gardener.cluster.places import Cluster
from gardener.protocol.certificates import NAME
from gardener.runtime.wording import printable

if TYPE_CHECKING:  # it imports cryptography
    from gardener.keys.folder import Shown

DAYS = 825
"""Days that a certificate is valid unless it is said otherwise: some two years, the longest that
makers of software still trust."""

WordsArgument = Annotated[
    tuple[str, ...],
    Parameter(
        metavar="[DIR] NAME...",
        allow_leading_hyphen=False,
        help="The folder of the keys, if it is not the one that the cluster file names; and who "
        "needs some: stage-4, spare-1, holder",
    ),
]
FolderArgument = Annotated[
    Path | None,
    Parameter(
        metavar="DIR",
        allow_leading_hyphen=False,
        help="The folder of the keys. Default: the one that the cluster file names.",
    ),
]
StagesOption = Annotated[
    int | None,
    Parameter(
        validator=Number(gte=1, lte=1024),
        metavar="N",
        help="How many stages there are. Default: as many as the cluster file has.",
    ),
]
SparesOption = Annotated[
    int | None,
    Parameter(
        validator=Number(gte=0, lte=1024),
        metavar="M",
        help="How many spare machines, which may take the place of any stage. Default: as many as "
        "the cluster file has, or none.",
    ),
]
DaysOption = Annotated[
    float, Parameter(validator=Number(gt=0, lte=3650), help="How long certificates are valid.")
]
NameOption = Annotated[
    str | None,
    Parameter(
        metavar="CLUSTER",
        help="What the cluster is called; certificates say it. Default: its name in the cluster "
        "file, or gardener.",
    ),
]

app = App(
    name="keys",
    help="Make the keys with which the links of a ring are secured.",
    sort_key=10,
    group_parameters=Group("Options"),
)
"""A command with commands of its own; all else is as `gardener` has it."""


@app.command
def init(
    folder: FolderArgument = None,
    /,
    *,
    stages: StagesOption = None,
    spares: SparesOption = None,
    days: DaysOption = DAYS,
    name: NameOption = None,
    cluster: ClusterFile = None,
) -> None:
    """Make a CA for a cluster, and a certificate for its holder, each stage and each spare.

    gardener keys init keys --stages 3
    """
    from gardener.keys.folder import init as make  # late: it imports cryptography

    found = _described(cluster)
    folder = _folder(folder, found, "say which folder to make: gardener keys init DIR")
    if found is not None:
        stages = stages or len(found.stages)
        spares = len(found.spares) if spares is None else spares
        name = name or found.name
    if stages is None:
        raise Misuse("say how many stages there are: --stages N, or write a cluster.toml that does")
    names = make(folder, name or "gardener", stages, spares or 0, days)
    result(_made(folder, names, found))


@app.command(usage="Usage: gardener keys add [OPTIONS] [DIR] NAME...")
def add(words: WordsArgument, /, *, days: DaysOption = DAYS, cluster: ClusterFile = None) -> None:
    """Make certificates for further machines of a cluster, by the CA in its folder.

    gardener keys add keys stage-4 spare-1
    """
    from gardener.keys.folder import add as make  # late: it imports cryptography

    named = None if NAME.fullmatch(words[0]) else Path(words[0])
    names = words if named is None else words[1:]
    if not names:
        raise Misuse(f"say who needs keys: gardener keys add {words[0]} stage-4")
    found = _described(cluster)
    folder = _folder(named, found, f"say which folder it is: gardener keys add DIR {names[0]}")
    result(_made(folder, make(folder, names, days), found))


@app.command
def show(
    folder: FolderArgument = None, /, *, as_json: o.Json = False, cluster: ClusterFile = None
) -> None:
    """Say whose certificates are in a folder, and until when they are valid.

    gardener keys show keys
    """
    from gardener.keys.folder import look  # late: it imports cryptography

    if folder is None:
        question = "say which folder to look at: gardener keys show DIR"
        folder = _folder(None, _described(cluster), question)
    found = look(folder)
    if as_json:
        result(json.dumps([_record(each) for each in found]) + "\n")
        return
    result("".join(f"{line}\n" for each in found for line in _lines(each)))


def _described(path: Path | None) -> Cluster | None:
    """What the cluster file says, if there is one. Raises UserError."""
    if path is None:
        return None
    found = read_cluster(path)
    note(str(found))
    return found


def _folder(named: Path | None, cluster: Cluster | None, question: str) -> Path:
    """The folder of the keys. Raises Misuse, with the question, if nobody names one."""
    folder = named
    if folder is None and cluster is not None:
        folder = cluster.keys
    if folder is None:
        out = (
            'add keys = "keys" to the cluster file' if cluster else "write a cluster.toml that does"
        )
        raise Misuse(f"{question}, or {out}")
    return folder


def _made(folder: Path, names: list[str], cluster: Cluster | None = None) -> str:
    """Where what was made has to go."""
    width = max(map(len, names))
    described = cluster is not None and cluster.keys == folder.absolute()
    to = [
        f"  {name:<{width}}  ca.pem, {name}.pem, {name}.key  -> {_machine(name, described)}"
        for name in names
    ]
    into = "into a folder that its --keys names:"
    if cluster is not None and described:
        beside = os.path.relpath(folder, cluster.path.parent)
        into = f"{cluster.path.name}, and, into a folder {beside} beside it:"
    return "\n".join(
        (
            f"{folder}: certificates for {', '.join(names)}.",
            f"Copy to each machine, by a way that you trust (scp -p), {into}",
            *to,
            "ca.key goes to none of them: whoever has it can pose as anyone in the ring. Keep it "
            "here,",
            "or away from any network; it is needed again only for `gardener keys add`.",
            "",
        )
    )


def _machine(name: str, described: bool) -> str:
    """Who runs there, and how. `described`: by a file, which says where the keys are."""
    kind, _, number = name.partition("-")
    option = "" if described else " --keys DIR"
    if kind == "stage":
        return f"gardener-node --stage {number}{option}"
    if kind == "spare":
        return f"gardener-node --spare {number}{option}"
    return f"gardener chat{option}, or serve"


def _lines(each: "Shown") -> list[str]:
    remarks = [f"expires in {each.days:.0f} days" if each.days > 0 else "HAS EXPIRED"]
    if not each.has_key:
        remarks.append("its key is not here")
    if each.open_to_all:
        remarks.append(f"OTHERS CAN READ ITS KEY: chmod 600 {each.name}.key")
    head = f"{printable(each.name)} of cluster {each.cluster}: until {each.until:%Y-%m-%d %H:%M}"
    return [f"{head} UTC, {', '.join(remarks)}", f"  SHA-256 {each.fingerprint}"]


def _record(each: "Shown") -> dict[str, object]:
    return {
        "name": each.name,
        "cluster": each.cluster,
        "since": each.since.isoformat(),
        "until": each.until.isoformat(),
        "days": round(each.days, 1),
        "sha256": each.fingerprint,
        "has_key": each.has_key,
        "open_to_all": each.open_to_all,
    }
