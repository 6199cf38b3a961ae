"""Which drafters a holder has: from settings to drafters that are ready."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gardener.draft.drafter import Drafter
from gardener.draft.ngram import NGram
from gardener.errors import UserError
from gardener.runtime.wording import Say

if TYPE_CHECKING:  # it imports torch
    from gardener.draft.block import BlockNetwork
    from gardener.draft.network import DraftNetwork
    from gardener.model.device.graphs import Recorder
    from gardener.model.kernels.interface import Make

KINDS = ("ngram", "eagle", "model")
"""Kinds of drafters, in the order in which they are asked."""

Resolve = Callable[[str], Path]
"""Finds the folder of a head that the user names."""


@dataclass(frozen=True)
class DraftSettings:
    """What a user says about drafting.

    kinds   of drafters; None: n-gram, and whatever `head`, `model` and the package bring
    head    an EAGLE or one-pass checkpoint: folder, hub id or the name of a shipped one; None: the
            one that is shipped for the model, if any
    model   a small model with the same tokens
    dtype   what drafters compute in. int8: a head's linear layers in 8 bits, on the CPU. auto: that
            for a head where it is faster; otherwise the float type that this device is faster with
    graphs  on CUDA, record the kernels of a drafter once and start them together from then on
    """

    kinds: tuple[str, ...] | None = None
    head: str | None = None
    model: str | None = None
    dtype: str = "auto"
    device: str = "cpu"
    graphs: bool = True

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
        if self.dtype == "int8" and not self.on_cpu:
            raise UserError(
                f"--draft-dtype int8 is for the CPU, and --draft-device is {self.device}"
            )

    @property
    def on_cpu(self) -> bool:
        """Whether drafters compute on the CPU."""
        return self.device.split(":")[0] == "cpu"

    @property
    def eagle(self) -> bool:
        """Whether a head may draft, if there is one."""
        return self.kinds is None or "eagle" in self.kinds

    def borrows(self, model: Path) -> bool:
        """Whether a drafter may need the embedding and the output matrix of the model in this
        folder, where config and index may be all that is here yet. Raises UserError."""
        if self.head is not None or not self.eagle:
            return self.head is not None
        from gardener.draft.shipped import head_for
        from gardener.model.checkpoint.tensors import fingerprint  # late: imports torch

        return head_for(fingerprint(model)) is not None


def drafters(
    settings: DraftSettings,
    model: Path,
    resolve_head: Resolve,
    resolve_model: Resolve,
    say: Say = lambda text: None,
) -> list[Drafter]:
    """The drafters for the target in the folder `model`; `say` gets notes for the user.

    Raises UserError.
    """
    found: list[Drafter] = []
    if settings.kinds is None or "ngram" in settings.kinds:
        found.append(NGram())
    head = _head(settings, model, resolve_head, say)
    if head is not None:
        found.append(_of_head(head, model, settings))
    if settings.model is not None:
        if settings.dtype == "int8":
            say("--draft-dtype int8 is for a head: the small model computes in a float type")
        found.append(_small_model(resolve_model(settings.model), model, settings, say))
    return found


def _head(settings: DraftSettings, model: Path, resolve: Resolve, say: Say) -> Path | None:
    """The folder of the draft head, if there is to be one."""
    if settings.head is not None:
        return resolve(settings.head)
    if not settings.eagle:
        return None
    # Late, here and below: these import torch, which takes a second.
    from gardener.draft.shipped import head_for, likely_head
    from gardener.model.checkpoint.tensors import fingerprint

    mark = fingerprint(model)
    shipped, likely = head_for(mark), likely_head(mark)
    if shipped is not None:
        return shipped
    note = "no head is shipped for this model: say with --head where one is"
    if likely is not None:
        note = (
            f"the shipped head {likely.name} is for a model of this structure, but not all weights "
            f"are here to tell whether it is this one: --head {likely.name} uses it"
        )
    if settings.kinds is not None:
        raise UserError(note)
    if likely is not None:
        say(note)
    return None


def _of_head(head: Path, model: Path, settings: DraftSettings) -> Drafter:
    from gardener.draft.block_config import is_one_pass
    from gardener.draft.block_drafter import BlockDrafter
    from gardener.draft.block_files import load_block
    from gardener.draft.calibration import Calibration
    from gardener.draft.eagle_files import load_eagle
    from gardener.draft.incremental import Incremental
    from gardener.model.kernels.linear import untried_linear

    dtype, make = _computing(settings)
    calibration = Calibration.read(head / "calibration.json")
    numbers = "" if make is untried_linear else "int8"
    if is_one_pass(head):
        block = load_block(head, model, dtype=dtype, device=settings.device, make=make)
        recorder = _recorder(block, settings)
        return BlockDrafter(block, calibration, numbers=numbers, recorder=recorder)
    eagle = load_eagle(head, model, dtype=dtype, device=settings.device, make=make)
    recorder = _recorder(eagle, settings)
    return Incremental(eagle, calibration, numbers=numbers, recorder=recorder)


def _computing(settings: DraftSettings) -> tuple[str, "Make"]:
    """The float type of a head, and what makes its linear layers."""
    from gardener.model.kernels.int8 import Int8Linear, int8_pays, int8_works
    from gardener.model.kernels.linear import untried_linear

    if settings.dtype == "int8" and not int8_works():
        raise UserError("--draft-dtype int8: this build of torch cannot do it here; take auto")
    if settings.dtype == "int8" or (settings.dtype == "auto" and settings.on_cpu and int8_pays()):
        return "float32", Int8Linear
    return _float_dtype(settings), untried_linear


def _float_dtype(settings: DraftSettings) -> str:
    from gardener.model.device.named import device_of
    from gardener.model.kernels.linear import quick_dtype

    device_of(settings.device)
    return quick_dtype(settings.device) if settings.dtype in ("auto", "int8") else settings.dtype


def _small_model(folder: Path, model: Path, settings: DraftSettings, say: Say) -> Drafter:
    from gardener.draft.calibration import Calibration
    from gardener.draft.incremental import Incremental
    from gardener.draft.small_model import SmallModel

    dtype = _float_dtype(settings)
    network = SmallModel(folder, model, dtype=dtype, device=settings.device, say=say)
    return Incremental(network, Calibration(), recorder=_recorder(network, settings))


def _recorder(network: "DraftNetwork | BlockNetwork", settings: DraftSettings) -> "Recorder | None":
    """How the work of a network is recorded. Which experts are read, nobody knows beforehand."""
    from gardener.model.device.graphs import recorder

    return recorder(network.device, settings.graphs and network.shape.mixture is None)


def names(found: Sequence[Drafter]) -> str:
    """`ngram + eagle (int8)`, for people."""

    def said(drafter: Drafter) -> str:
        return f"{drafter.name} ({drafter.numbers})" if drafter.numbers else drafter.name

    return " + ".join(map(said, found)) or "none"
