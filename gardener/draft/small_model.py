"""A small model of the same vocabulary as a drafter. It needs nothing from the ring."""

from pathlib import Path

from torch import Tensor

from gardener.draft.network import DraftRows
from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.loader import load_whole


class SmallModel:
    """All layers of a model on this machine."""

    name = "model"
    lead = 0
    taps: tuple[int, ...] = ()
    tokens: Tensor | None = None

    def __init__(self, folder: Path, target: Path, *, dtype: str, device: str) -> None:
        """Raises UserError for a model that does not fit the target."""
        self._whole = load_whole(folder, dtype=dtype, device=device)
        self.shape, self.rotary = self._whole.architecture, self._whole.rotary
        self.layers = self.shape.layers
        self.dtype, self.device = self._whole.head.dtype, self._whole.head.device
        vocab = Architecture.read(target).vocab
        if self.shape.vocab != vocab:
            raise UserError(
                f"the draft model in {folder} has a vocabulary of {self.shape.vocab}, the model "
                f"one of {vocab}: --draft-model must be of the same family"
            )

    def run(self, rows: DraftRows) -> Tensor:
        """Outputs [rows, width] of the last norm."""
        whole = self._whole
        x = whole.embed(rows.tokens)
        for block in whole.blocks:
            x = block(x, rows.rotations, rows.spans)
        return whole.head.normed(x)

    def logits(self, outputs: Tensor) -> Tensor:
        """[rows, vocab]."""
        return self._whole.head.project(outputs)
