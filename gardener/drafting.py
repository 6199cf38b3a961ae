"""Which drafters a holder has: from settings to drafters that are ready."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gardener.draft.drafter import Drafter
from gardener.draft.ngram import NGram
from gardener.errors import UserError

KINDS = ("ngram", "eagle", "model")
"""Kinds of drafters, in the order in which they are asked."""

Resolve = Callable[[str], Path]
"""From what the user names to a folder."""


@dataclass(frozen=True)
class DraftSettings:
    """What a user says about drafting.

    kinds   of drafters; None: n-gram, and whatever `head`, `model` and the package bring
    head    an EAGLE checkpoint, folder or hub id; None: the one shipped for the model, if any
    model   a small model of the same vocabulary
    """

    kinds: tuple[str, ...] | None = None
    head: str | None = None
    model: str | None = None
    dtype: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for kind in self.kinds or ():
            if kind not in KINDS:
                raise UserError(f"no drafter '{kind}': --draft takes {', '.join(KINDS)} or none")
        if self.kinds is not None and self.head and "eagle" not in self.kinds:
            raise UserError("--head is given, but --draft leaves eagle out")
        if self.kinds is not None and self.model and "model" not in self.kinds:
            raise UserError("--draft-model is given, but --draft leaves model out")
        if "model" in (self.kinds or ()) and not self.model:
            raise UserError("--draft model needs --draft-model, a small model to draft with")

    @property
    def borrows(self) -> bool:
        """May a drafter need the model's embedding and output matrix?"""
        return self.head is not None or "eagle" in (self.kinds or ())


def drafters(
    settings: DraftSettings, model: Path, resolve_head: Resolve, resolve_model: Resolve
) -> list[Drafter]:
    """The drafters for the target in the folder `model`. Raises UserError."""
    found: list[Drafter] = []
    if settings.kinds is None or "ngram" in settings.kinds:
        found.append(NGram())
    head = _head(settings, model, resolve_head)
    if head is not None:
        found.append(_eagle(head, model, settings))
    if settings.model is not None:
        found.append(_small_model(resolve_model(settings.model), model, settings))
    return found


def _head(settings: DraftSettings, model: Path, resolve: Resolve) -> Path | None:
    """The folder of the draft head, if there is to be one."""
    if settings.head is not None:
        return resolve(settings.head)
    if settings.kinds is not None and "eagle" not in settings.kinds:
        return None
    # Late, here and below: these import torch, which takes a second.
    from gardener.stages.weights import fingerprint
    from gardener.trained import head_for

    shipped = head_for(fingerprint(model))
    if shipped is None and settings.kinds is not None:
        raise UserError("no head is shipped for this model: say with --head where one is")
    return shipped


def _eagle(head: Path, model: Path, settings: DraftSettings) -> Drafter:
    from gardener.draft.calibration import Calibration
    from gardener.draft.checkpoint import load_eagle
    from gardener.draft.incremental import Incremental

    network = load_eagle(head, model, dtype=settings.dtype, device=settings.device)
    return Incremental(network, Calibration.read(head / "calibration.json"))


def _small_model(folder: Path, model: Path, settings: DraftSettings) -> Drafter:
    from gardener.draft.calibration import Calibration
    from gardener.draft.incremental import Incremental
    from gardener.draft.model import SmallModel

    network = SmallModel(folder, model, dtype=settings.dtype, device=settings.device)
    return Incremental(network, Calibration())


def names(found: Sequence[Drafter]) -> str:
    """`ngram + eagle`, for people."""
    return " + ".join(drafter.name for drafter in found) or "none"
