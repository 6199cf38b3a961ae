"""What the places of a cluster must be together: one ring, in which everybody can be dialled."""

import re
from collections.abc import Sequence
from pathlib import Path

from gardener.cluster.places import Cluster, Place, StagePlace
from gardener.errors import UserError
from gardener.net.address import is_loopback
from gardener.runtime.wording import bare_span

RANGE = re.compile(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?")
"""`0-9`, both included, or `7`."""

ALIKE = ("dtype", "quant", "quant_head")
"""What all stages of a ring have in common."""


def check_together(path: Path, places: Sequence[tuple[str, Place]]) -> None:
    """`places`: by table. Raises UserError for places that are the same, or of which some can be
    reached from one machine only and others are elsewhere."""
    seen: dict[tuple[str, int], str] = {}
    for title, place in places:
        other = seen.setdefault((place.host.lower(), place.port), title)
        if other != title:
            raise UserError(
                f"{path}: {title} is at {place.address}, and so is {other}: give each a port of "
                "its own on the same machine, or the host that is meant"
            )
    here = [(title, place) for title, place in places if is_loopback(place.host)]
    away = [(title, place) for title, place in places if not is_loopback(place.host)]
    if here and away:
        raise UserError(
            f"{path}: {here[0][0]} is at {here[0][1].host}, which only programs on the same "
            f"machine can dial, and {away[0][0]} at {away[0][1].host}: give {here[0][0]} the "
            "address under which the others reach it"
        )


def check_alike(path: Path, stages: Sequence[StagePlace]) -> None:
    """Raises UserError where stages differ in what a ring has in common."""
    for stage in stages[1:]:
        for key in ALIKE:
            ours, first = getattr(stage, key), getattr(stages[0], key)
            if ours != first:
                raise UserError(
                    f"{path}: [stage.{stage.number}]: {key} is {ours}, and that of [stage.1] "
                    f"{first}: all stages of a ring need the same, write {key} once, above the "
                    "tables"
                )


def check_layers(path: Path, stages: Sequence[StagePlace]) -> None:
    """Raises UserError unless all layers are named, in order and without a gap, or none."""
    silent = [stage.number for stage in stages if stage.layers is None]
    if len(silent) == len(stages):
        return
    if silent:
        raise UserError(
            f"{path}: [stage.{silent[0]}] names no layers, and others do: name them for all "
            "stages, or for none, then they are shared out evenly"
        )
    expected = 0
    for stage in stages:
        first, end = _range(path, stage)
        if first != expected:
            missing = bare_span(expected, first) if first > expected else ""
            wrong = f"{missing} is missing" if missing else f"{first} is in two stages"
            raise UserError(
                f"{path}: [stage.{stage.number}]: layers are {stage.layers}, and should begin "
                f"with {expected}: {wrong}"
            )
        expected = end


def check_secured(cluster: Cluster) -> None:
    """Raises UserError for links that would leave this machine without keys, unless the file says
    that they may."""
    away = not all(is_loopback(each.host) for each in (cluster.holder, *cluster.stages))
    if away and cluster.keys is None and not cluster.insecure:
        raise UserError(
            f'{cluster.path}: it names no keys, and links leave this machine: add keys = "keys" '
            "above the tables and make them with `gardener keys init`, or add insecure = true if "
            "you trust every machine in between"
        )


def _range(path: Path, stage: StagePlace) -> tuple[int, int]:
    """The layers of a stage, half-open. Raises UserError."""
    match = RANGE.fullmatch(stage.layers or "")
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if last < first:
        raise UserError(
            f'{path}: [stage.{stage.number}]: layers "{stage.layers}" is no range: write the first '
            'and the last one, counted from 0, as "0-9"'
        )
    return first, last + 1
