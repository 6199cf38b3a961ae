"""Folders whose linear layers are stored as `Grouped` weights (`grouped_parts.py`): what they say
of it. Without torch."""

from pathlib import Path
from typing import Literal

from msgspec import Struct

from gardener.errors import UserError
from gardener.model.checkpoint.config import checked
from gardener.model.checkpoint.folders import read_json
from gardener.model.quants import AUTO, GROUP, GROUPS
from gardener.protocol.cards import made_from

HEAD_QUANT: Literal["int8"] = "int8"
"""Of the output matrix, unless told otherwise: its errors go straight into the logits."""


class Quantised(Struct, frozen=True):
    """How the matrices of a folder are stored, as the block `gardener` in its `config.json` has it.
    What was quantised in a GGUF file is as it was there.

    quant       a kind in `quants.GROUPED`, of the linear layers of the blocks
    group       how many of their weights share a scale
    quant_head  the same of the output matrix, in groups of `quants.GROUP`; none: in floats
    """

    quant: Literal["int4", "int8"]
    group: int = GROUP
    quant_head: Literal["none", "int4", "int8"] = HEAD_QUANT

    def __post_init__(self) -> None:
        """Raises ValueError for a group that no kernel takes."""
        if self.group not in GROUPS:
            raise ValueError(f"group is {self.group}, not one of {', '.join(map(str, GROUPS))}")

    @property
    def name(self) -> str:
        """All of it in a word, as files of weights note it."""
        return f"{self.quant}-{self.group}-{self.quant_head}"

    @property
    def mark(self) -> str:
        """What a fingerprint begins with: quantised weights are another model."""
        return f"{self.name}-"


class _Config(Struct, frozen=True):
    gardener: Quantised | None = None


def quantised(folder: Path) -> Quantised | None:
    """How the folder is quantised; None: it is not. Raises UserError."""
    file = folder / "config.json"
    raw = read_json(file)
    block = raw.get("gardener")
    if not isinstance(block, dict) or "quant" not in block:
        return None
    return checked(_Config, file, raw, "write the folder anew").gardener


def stored_quant(folder: Path) -> str | None:
    """The kind, in `quants.GROUPED`, in which a folder's linear layers are stored; None: it is for
    whoever loads them to say. Raises UserError."""
    found = quantised(folder)
    return None if found is None else found.quant


def agreed_quant(folder: Path, asked: str) -> str:
    """The kind in which a stage computes that is asked for this one: the folder's own, if it has
    one. Raises UserError where the two contradict each other; "none", the default, leaves it to the
    folder, and so does "auto"."""
    stored = stored_quant(folder)
    if stored is None or asked == stored:
        return asked
    if asked in ("none", AUTO):
        return stored
    raise UserError(
        f"{folder} is stored in {stored}, which cannot become {asked}: leave --quant out, or take "
        "the model that it was made from"
    )


def agreed_head(folder: Path, asked: str) -> str:
    """The same of the output matrix, where only "auto" leaves it to the folder: "none" is a kind
    like the others, and not the default. Raises UserError."""
    found = quantised(folder)
    if found is None:
        return asked
    if asked not in (AUTO, found.quant_head):
        raise UserError(
            f"{folder} is stored with its head in {found.quant_head}, which cannot become {asked}: "
            "leave --quant-head out, or take the model that it was made from"
        )
    return found.quant_head


def unquantised(fingerprint: str) -> str:
    """The fingerprint of the model that a quantised one was made from."""
    return made_from(fingerprint)[1]
