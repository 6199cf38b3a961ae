"""What a safetensors file notes of its quantised tensors in its `__metadata__`. Without torch.

The file has how all of them are quantised, as `Quantised.name` says it, under `gardener`: whoever
writes a `config.json` anew cannot make another kind of the weights.

Each has its bits and its other parts under its name: `4 scales zeros`. Just what is noted must be
there: a part that was lost, or came from elsewhere, makes other weights of the same steps.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gardener.errors import UserError

WHOLE = "gardener"

PARTS = ("scales", "zeros", "minima")
"""What a quantised tensor has besides its steps, which have its name: `NAME.scales` and so on."""

_NOTE = re.compile(rf"([48])((?: (?:{'|'.join(PARTS)}))*)")


@dataclass(frozen=True)
class Note:
    """Of a tensor: the bits of its steps, and its other parts, some of `PARTS`."""

    bits: int
    parts: tuple[str, ...]

    def __str__(self) -> str:
        """As it stands in the file."""
        return " ".join((str(self.bits), *self.parts))


def notes(path: Path, header: Mapping[str, Any]) -> dict[str, Note]:
    """By tensor, from the header of the file in `path`. Raises UserError where other parts are
    there than those that are noted."""
    found = {}
    for name, text in (header.get("__metadata__") or {}).items():
        words = _NOTE.fullmatch(text)
        if words is None or not (words[2] or name in header):
            continue  # whatever others write there
        found[name] = Note(int(words[1]), tuple(words[2].split()))
        here = [part for part in ("", *PARTS) if _full(name, part) in header]
        if here != ["", *found[name].parts] or "scales" not in here:
            there = ", ".join(part or "steps" for part in here) or "nothing"
            raise odd(f"{name} in {path}", f"noted is '{text}', and there is: {there}")
    return found


def parts_of(name: str, note: Note) -> dict[str, str]:
    """The parts of a tensor, and their names in the file; the steps are called ""."""
    return {part: _full(name, part) for part in ("", *note.parts)}


def names_in(path: Path, header: Mapping[str, Any]) -> list[str]:
    """The tensors of a file; the parts of one that is quantised are one tensor. Raises
    UserError."""
    found = notes(path, header).items()
    others = {full for name, note in found for part, full in parts_of(name, note).items() if part}
    return [name for name in header if name != "__metadata__" and name not in others]


def odd(what: str, why: str) -> UserError:
    """For a quantised tensor that is damaged."""
    return UserError(f"{what} is not quantised as it should be: {why}: split the model anew")


def _full(name: str, part: str) -> str:
    return f"{name}.{part}" if part else name
