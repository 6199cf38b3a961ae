"""`cluster.toml`: one file for all machines of a ring, read by every command.

    name = "home"                   # for people
    model = "smollm2-135m"          # as --model takes it; a path is relative to this file
    keys = "keys"                   # folder of `gardener keys init`, relative to this file
    dtype = "bfloat16"              # above the tables: holds for every stage

    [holder]                        # where `gardener chat`, `serve` and the others run
    host = "10.0.0.1"
    port = 7000

    [draft]                         # optional: as --draft, --head, --draft-model, ...
    kinds = ["ngram", "eagle"]

    [stage.1]                       # `gardener-node --stage 1`
    host = "10.0.0.2"               # what its neighbours dial
    port = 7001
    layers = "0-14"                 # of all stages, or of none: then they are shared out evenly

    [stage.2]
    host = "box3.local"
    port = 7001
    listen = "0.0.0.0:7001"         # optional: where it listens, if that is not host:port
    layers = "15-29"
    device = "cuda"

    [spare.1]                       # `gardener-node --spare 1`
    host = "10.0.0.4"
    port = 7001

A stage is a table with a number, not an entry of a list: the number is the one that the command and
the certificate have, and errors name it.
"""

import ipaddress
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gardener.cluster.checks import check_alike, check_layers, check_together
from gardener.cluster.places import Cluster, DraftPart, HolderPlace, Place, SparePlace, StagePlace
from gardener.cluster.table import Table, shown
from gardener.draft.factory import KINDS
from gardener.errors import UserError, reason
from gardener.model.quants import AUTO, HEAD_QUANTS, QUANTS
from gardener.net.address import parse
from gardener.protocol.certificates import CLUSTER as CLUSTER_NAME
from gardener.protocol.room import MOST_CONTEXT
from gardener.protocol.tensors import ITEM_SIZE

PLACE = ("host", "port", "listen")
MACHINE = ("model", "device", "threads", "kv_memory", "graphs")
ALIKE = ("dtype", "quant", "quant_head")
CLUSTER = ("name", "revision", "context", "keys", "insecure", *MACHINE, *ALIKE)
TABLES = ("holder", "draft", "stage", "spare")
DRAFT = ("kinds", "head", "model", "dtype", "device", "graphs")
"""The keys of each kind of table. Those of MACHINE and ALIKE hold for all stages where they stand
above the tables."""

DRAFT_DTYPES = ("auto", "int8", *ITEM_SIZE)
EXAMPLE = "smollm2-135m"
"""The model that comes with Gardener."""


def read_cluster(path: Path) -> Cluster:
    """The cluster that a file describes. Raises UserError, which names file, table and key."""
    path = path.expanduser().absolute()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"the cluster file {path} cannot be read: {reason(error)}") from error
    top = Table(path, "", values, (*CLUSTER, *TABLES))
    common = {key: values[key] for key in (*MACHINE, *ALIKE) if key in values}
    stages = top.numbered("stage")
    if not stages:
        raise top.error("there is no stage: write [stage.1], and its host and port below that")
    cluster = Cluster(
        path=path,
        name=_name(top),
        model=_model(top),
        revision=top.text_or("revision", None),
        draft=top.table("draft", lambda given: _draft(Table(path, "[draft]", given, DRAFT))),
        keys=_keys(top),
        insecure=top.yes("insecure"),
        holder=top.table("holder", lambda given: _holder(path, given)),
        stages=tuple(_stage(path, n, given, common) for n, given in stages.items()),
        spares=tuple(_spare(path, n, given, common) for n, given in top.numbered("spare").items()),
        context=top.number_or("context", 2, MOST_CONTEXT),
    )
    _check(cluster)
    return cluster


def _name(table: Table) -> str:
    name = table.text_or("name", "")
    if name and not CLUSTER_NAME.fullmatch(name):
        raise table.error(
            f"name {shown(name)} cannot be one, as certificates have it: take up to 40 letters, "
            "digits, dots, underscores and hyphens, a letter or digit first"
        )
    return name


def _check(cluster: Cluster) -> None:
    places: list[tuple[str, Place]] = [("[holder]", cluster.holder)]
    places += [(f"[stage.{each.number}]", each) for each in cluster.stages]
    places += [(f"[spare.{each.number}]", each) for each in cluster.spares]
    check_together(cluster.path, places)
    check_alike(cluster.path, cluster.stages)
    check_layers(cluster.path, cluster.stages)


def _holder(path: Path, given: Mapping[str, Any]) -> HolderPlace:
    if not given:
        raise UserError(
            f"{path}: there is no [holder]: write [holder], and below that the host and port at "
            "which the last stage reaches the machine where you chat"
        )
    return HolderPlace(**_place(Table(path, "[holder]", given, PLACE)))


def _stage(
    path: Path, number: int, given: Mapping[str, Any], common: Mapping[str, Any]
) -> StagePlace:
    known = (*PLACE, "layers", *MACHINE, *ALIKE)
    table = Table(path, f"[stage.{number}]", given, known, common)
    return StagePlace(
        **_place(table),
        **_machine(table),
        number=number,
        layers=table.text_or("layers", None, "0-9"),
        dtype=table.one_of("dtype", tuple(ITEM_SIZE), "float32"),
        quant=table.one_of("quant", (*QUANTS, AUTO), "none"),
        quant_head=table.one_of("quant_head", HEAD_QUANTS, AUTO),
    )


def _spare(
    path: Path, number: int, given: Mapping[str, Any], common: Mapping[str, Any]
) -> SparePlace:
    table = Table(path, f"[spare.{number}]", given, (*PLACE, *MACHINE), common)
    return SparePlace(**_place(table), **_machine(table), number=number)


def _place(table: Table) -> dict[str, Any]:
    """Where it is, as `Place` has it."""
    host = table.text("host", "10.0.0.2")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:  # a name
        address = None
        if ":" in host or "/" in host or " " in host:
            raise table.error(
                f"host {shown(host)} is neither a name nor an address: write the host alone, and "
                "the port as port = 7001"
            ) from None
    if address is not None and address.is_unspecified:
        raise table.error(
            f"nobody can dial host {shown(host)}: write the address of that machine, and "
            f'listen = "{host}:{table.number("port", 1, 65535, 7001)}" if it is to listen at all'
        )
    listen = table.text_or("listen", None, "0.0.0.0:7001")
    if listen is not None:
        try:
            parse(listen)
        except UserError as error:
            raise table.error(f"listen: {error}") from error
    return {"host": bare, "port": table.number("port", 1, 65535, 7001), "listen": listen}


def _machine(table: Table) -> dict[str, Any]:
    """What a node computes with, as `NodePlace` has it."""
    return {
        "model": _model(table),
        "device": table.text_or("device", "cpu", "cuda"),
        "threads": table.number_or("threads", 1),
        "kv_memory": table.amount_or("kv_memory"),
        "graphs": table.yes_or("graphs"),
    }


def _draft(table: Table) -> DraftPart:
    model, head = table.text_or("model", None), table.text_or("head", None)
    return DraftPart(
        kinds=table.list_or("kinds", (*KINDS, "auto", "none")),
        head=None if head is None else _beside(table.path, head),
        model=None if model is None else _beside(table.path, model),
        dtype=table.one_of("dtype", DRAFT_DTYPES, "auto") if table.has("dtype") else None,
        device=table.text_or("device", None, "cuda"),
        graphs=table.yes_or("graphs"),
    )


def _model(table: Table) -> str:
    return _beside(table.path, table.text("model", EXAMPLE))


def _keys(table: Table) -> Path | None:
    folder = table.text_or("keys", None, "keys")
    if folder is None:
        return None
    if table.yes("insecure"):
        raise table.error("keys and insecure = true exclude each other: leave one of them out")
    return table.path.parent / Path(folder).expanduser()


def _beside(path: Path, text: str) -> str:
    """A path relative to the file; a name (of what comes with the package, or of a hub) is left as
    it is."""
    place = path.parent / Path(text).expanduser()
    named = text.startswith(("/", "./", "../", "~"))
    return str(place) if named or place.exists() else text
