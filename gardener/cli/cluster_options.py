"""`--cluster`: what a command is not told, the file of the cluster says.

The command line goes before the environment, which goes before the file of `--config`, which goes
before this one. A file that is found without being named stands back where a ring is named.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import platformdirs
from cyclopts import App, ArgumentCollection, Parameter

from gardener.cli.config import give
from gardener.cli.groups import RING
from gardener.cli.logs import begin_logs
from gardener.cli.output import note
from gardener.cluster.checks import check_secured
from gardener.cluster.file import read_cluster
from gardener.cluster.here import check_here
from gardener.cluster.places import Cluster

NAME = "cluster.toml"

Given: TypeAlias = Mapping[str, list[str]]
"""What options were given, by long name without --, whatever gave it."""

ClusterFile: TypeAlias = Annotated[
    Path | None,
    Parameter(
        group=RING,
        env_var="GARDENER_CLUSTER",
        metavar="FILE",
        help="The file that describes the cluster. Default: cluster.toml in this folder, else the "
        "one in ~/.config/gardener, if there is one.",
    ),
]

RINGS = ("local", "simulate", "peer", "url")
"""Options that say which ring it is, or that there is none."""


def from_cluster(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give options that nobody has set the value that the cluster's file has for them. Raises
    UserError."""
    known = {name[2:] for each in arguments for name in each.names if name.startswith("--")}
    if "cluster" not in known:
        return
    given = {
        name[2:]: [token.value for token in each.tokens]
        for each in arguments
        for name in each.names
        if name.startswith("--") and each.tokens
    }
    if given.get("log-format", [""])[-1] == "json":
        begin_logs("json")  # or the line below would be the only one that is not
    path = _file(given, aside=commands[-1:] == ("doctor",))
    if path is None:
        return
    cluster = read_cluster(path)
    if "stage" in known:
        values = _of_node(cluster, given)
    elif "peer" in known and commands[-1:] != ("doctor",):  # which looks at the file itself
        values = _of_holder(cluster, given, anywhere=commands[-1:] == ("plan",))
    else:
        values = {}
    values["cluster"] = str(cluster.path)
    said = {name: value for name, value in values.items() if value is not None and name in known}
    if "draft" in said and commands[-1:] == ("eval",):
        said["draft"] = [said["draft"]]
    give(said, str(path), app, commands, arguments)


def usual_place() -> Path:
    """Where the file of a user is."""
    return Path(platformdirs.user_config_dir("gardener")) / NAME


def _file(given: Given, aside: bool) -> Path | None:
    """The file that counts, if one does; a line says where one does not. `aside`: there is nothing
    else to take from it."""
    if "url" in given:
        return None
    if "cluster" in given:
        return Path(given["cluster"][-1])
    here = Path(NAME)
    path = next((each for each in (here, usual_place()) if each.is_file()), None)
    named = next((each for each in RINGS if each in given), None)
    if path is None or named is None:
        return path
    if path == here and "leash" not in given:
        rest = "" if aside else f" (--cluster {NAME} takes all else from it)"
        note(f"{NAME} in this folder is left aside: --{named} says where the stages are{rest}")
    return None


def _of_node(cluster: Cluster, given: Given) -> dict[str, Any]:
    """The options of a node, as far as nothing goes before them."""
    if "spare" in given and "stage" not in given:
        return _of_spare(cluster, given)
    number = given.get("stage", [""])[-1]
    if not number.isdecimal():  # somebody else says so
        return {}
    stage = cluster.stage(int(number))
    if "listen" not in given:
        check_here(cluster, f"stage.{number}", stage)
    note(f"{cluster}: {stage}")
    divided: dict[str, Any] = {"layers": stage.layers}
    if stage.layers is None:
        divided = {"stages": len(cluster.stages)}
    return {
        **_told(cluster, given),
        **_secured(cluster, given),
        **({} if {"layers", "stages"} & given.keys() else divided),
        "peer": str(cluster.after(stage.number).address),
        "listen": stage.listens_at,
        "model": stage.model,
        "device": stage.device,
        "dtype": stage.dtype,
        "quant": stage.quant,
        "quant-head": stage.quant_head,
        "threads": stage.threads,
        "kv-memory": stage.kv_memory,
        "graphs": stage.graphs,
    }


def _of_spare(cluster: Cluster, given: Given) -> dict[str, Any]:
    """The same of a spare: what a stage computes in, whoever it steps in for tells it."""
    number = given["spare"][-1]
    if not number.isdecimal():  # somebody else says so
        return {}
    spare = cluster.spare(int(number))
    if "listen" not in given:
        check_here(cluster, f"spare.{number}", spare)
    note(f"{cluster}: {spare}")
    return {
        **_told(cluster, given),
        **_secured(cluster, given),
        "listen": spare.listens_at,
        "model": spare.model,
        "device": spare.device,
        "threads": spare.threads,
        "kv-memory": spare.kv_memory,
        "graphs": spare.graphs,
    }


def _of_holder(cluster: Cluster, given: Given, anywhere: bool) -> dict[str, Any]:
    """The options of a command that holds the ring, as far as nothing goes before them.
    `anywhere`: it may have no ring to hold, and then can be asked on any machine."""
    note(str(cluster))
    options = {**_told(cluster, given), **_drafts(cluster, given), "model": cluster.model}
    if {"local", "simulate"} & given.keys():  # its stages are here, and on loopback
        first = cluster.stage(1)
        alike = {"dtype": first.dtype, "quant": first.quant, "quant-head": first.quant_head}
        return {**options, **alike}
    if "listen" not in given and not anywhere:
        check_here(cluster, "holder", cluster.holder)
    return {
        **options,
        **_secured(cluster, given),
        "peer": str(cluster.stage(1).address),
        "listen": cluster.holder.listens_at,
    }


def _told(cluster: Cluster, given: Given) -> dict[str, Any]:
    """What is known of the model and of spares. A revision is one of the model in the file."""
    return {
        "context": cluster.context,
        "spares": ",".join(str(each.address) for each in cluster.spares) or None,
        "revision": None if "model" in given else cluster.revision,
    }


def _secured(cluster: Cluster, given: Given) -> dict[str, Any]:
    """What links are secured with. Raises UserError."""
    if {"keys", "insecure"} & given.keys():
        return {}
    check_secured(cluster)
    return {"keys": cluster.keys, "insecure": cluster.insecure or None}


def _drafts(cluster: Cluster, given: Given) -> dict[str, Any]:
    """Who chooses drafters on the command line chooses all of them."""
    draft = cluster.draft
    options: dict[str, Any] = {
        "draft-dtype": draft.dtype,
        "draft-device": draft.device,
        "graphs": draft.graphs,
    }
    if not {"draft", "head", "draft-model"} & given.keys():
        options |= {"draft": draft.kinds, "head": draft.head, "draft-model": draft.model}
    return options
