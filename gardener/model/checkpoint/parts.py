"""The folders that `gardener split` wrote, and who reads which. Without torch."""

from pathlib import Path

from gardener.errors import UserError
from gardener.model.checkpoint.folders import read_json

HOLDER = 0
"""The holder's part; a stage's has its number."""


def own_part(folder: Path, part: int | None) -> Path:
    """The folder to read: `folder` itself, or what `part` is given of a model that was split, whose
    top folder this is. None: the whole model is needed.

    Raises UserError where it holds something else.
    """
    if is_split(folder):
        return _below(folder, part)
    held = held_part(folder)
    if held is None or held == part:
        return folder
    there = "the holder's part" if held == HOLDER else f"stage {held}"
    if part is None:
        raise UserError(f"{folder} holds {there} of a split model only: give the whole model")
    here = "the holder" if part == HOLDER else f"stage {part}"
    way_out = f"give it {_name(part)} of the same split"
    if held and part:
        way_out += f", or --stage {held}"
    raise UserError(f"{folder} holds {there}, and this is {here}: {way_out}")


def is_split(folder: Path) -> bool:
    """Whether this is the top folder of a model that was split."""
    return not (folder / "config.json").exists() and bool(_parts(folder))


def stages_of(folder: Path) -> int:
    """How many stages a model was split into, from the manifest in its top folder; without one, how
    many are here. Raises UserError."""
    file = folder / "manifest.json"
    if not file.exists():
        return len(list(folder.glob("stage-*/config.json")))
    stages = read_json(file).get("stages")
    if not isinstance(stages, list):
        raise UserError(f"{file} does not list the stages: split the model anew")
    return len(stages)


def check_stages(folder: Path, stages: int, option: str) -> None:
    """Raise UserError if this is the top folder of a model split into another number of stages than
    `option` says."""
    if is_split(folder) and stages_of(folder) != stages:
        raise UserError(
            f"{folder} is a model split into {stages_of(folder)} stages, and {option} is {stages}: "
            f"give {option} {stages_of(folder)}, or the model that it was split from"
        )


def _below(folder: Path, part: int | None) -> Path:
    if part is None:
        raise UserError(
            f"{folder} is a model split into {stages_of(folder)} stages, and the whole one is "
            "needed here: give the model that it was split from"
        )
    found = folder / _name(part)
    if not (found / "config.json").exists():
        here = ", ".join(_parts(folder))
        raise UserError(
            f"there is no {found.name} in {folder}, only {here}: copy it from where `gardener "
            "split` wrote it"
        )
    return found


def held_part(folder: Path) -> int | None:
    """Which part is here; None: a whole model, or one that says of itself what makes no sense,
    which whoever loads it tells."""
    note = read_json(folder / "config.json").get("gardener")
    held = note.get("stage") if isinstance(note, dict) else None
    return held if isinstance(held, int) else None


def _parts(folder: Path) -> list[str]:
    """The names of those that are below this folder."""
    found = [*folder.glob("holder/config.json"), *folder.glob("stage-*/config.json")]
    return sorted(file.parent.name for file in found)


def _name(part: int) -> str:
    return "holder" if part == HOLDER else f"stage-{part}"
