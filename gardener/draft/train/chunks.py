"""Dialogues on disk, in files that are whole or not there at all.

A chunk is a safetensors file: `tokens` int32 [n], `roles` uint8 [n] (see `dialogue`), `starts`
int64 [dialogues + 1], and what `Kept` has, all dialogues end to end.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gardener.draft.train.dialogue import Dialogue
from gardener.errors import LocalError, UserError, reason
from gardener.model.batch_decoder import Kept
from gardener.runtime.files import make_folder, whole_file


class Text(NamedTuple):
    """One dialogue: tokens and roles [n], and what `Kept` has of them."""

    tokens: Tensor
    roles: Tensor
    features: Tensor
    likely: Tensor
    odds: Tensor


def write(path: Path, dialogues: Sequence[Dialogue], facts: dict[str, str]) -> None:
    """Write a chunk; `facts` say what it was made of. Raises UserError."""
    kept = [d.kept for d in dialogues if d.kept is not None]
    if len(kept) != len(dialogues):
        raise LocalError("a dialogue without features is not worth keeping")
    lengths = torch.tensor([0, *(len(d.tokens) for d in dialogues)])
    tensors = {
        "tokens": torch.tensor([t for d in dialogues for t in d.tokens], dtype=torch.int32),
        "roles": torch.tensor([r for d in dialogues for r in d.roles], dtype=torch.uint8),
        "starts": lengths.cumsum(0),
    } | {name: torch.cat([getattr(k, name) for k in kept]) for name in Kept._fields}
    make_folder(path.parent)
    with whole_file(path) as draft:
        save_file(tensors, draft, metadata=facts)


def read(path: Path, facts: dict[str, str]) -> list[Text]:
    """The dialogues of a chunk. Raises UserError if it is broken, or made of something else."""
    tensors, made = _load(path)
    for name, value in facts.items():
        if made.get(name) != value:
            raise UserError(
                f"{path} was made with {name} {made.get(name)}, not {value}: use another --out, or "
                "take this file away"
            )
    starts = tensors["starts"].tolist()
    return list(_texts(tensors, starts))


def facts_of(path: Path) -> dict[str, str]:
    """What a chunk says it was made of. Raises UserError."""
    return _load(path)[1]


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}): take it away") from error


def dialogues(texts: Sequence[Text]) -> list[Dialogue]:
    """These texts as they are before they are written."""
    return [Dialogue(text.tokens.tolist(), text.roles.tolist(), Kept(*text[2:])) for text in texts]


def _texts(tensors: dict[str, Tensor], starts: list[int]) -> Iterator[Text]:
    for first, end in pairwise(starts):
        yield Text(*(tensors[name][first:end] for name in Text._fields))
