"""A small model with the same tokens as a drafter. It needs nothing from the ring."""

from pathlib import Path

from torch import Tensor

from gardener.draft.network import DraftRows
from gardener.draft.same_tokens import tokens_to_draft
from gardener.model.architecture import Architecture
from gardener.model.loader import load_whole
from gardener.runtime.wording import Say


class SmallModel:
    """All layers of a model on this machine."""

    name = "model"
    lead = 0
    taps: tuple[int, ...] = ()
    tokens: Tensor | None = None

    def __init__(
        self,
        folder: Path,
        target: Path,
        *,
        dtype: str,
        device: str,
        say: Say = lambda text: None,
    ) -> None:
        """`say` gets notes for the user. Raises UserError for a model that does not fit."""
        self._whole = load_whole(folder, dtype=dtype, device=device)
        self.shape, self.rotary = self._whole.architecture, self._whole.rotary
        self.layers, self.outputs = self.shape.layers, self.shape.width
        self.dtype, self.device = self._whole.head.dtype, self._whole.head.device
        self._places = tokens_to_draft(
            folder, self.shape.vocab, target, Architecture.read(target).vocab, say
        )

    @property
    def embeds_there(self) -> bool:
        """See `DraftNetwork`."""
        return self._whole.embed.is_there

    def embed(self, tokens: Tensor) -> Tensor:
        """See `DraftNetwork`. A token that the target alone has is read as the last one here: what
        is guessed after it is worse, no more."""
        return self._whole.embed(tokens.clamp(max=self.shape.vocab - 1))

    def run(self, rows: DraftRows) -> Tensor:
        """Outputs [rows, width] of the last norm."""
        whole, x = self._whole, rows.embedded
        for block in whole.blocks:
            x = block(x, rows.rotations, rows.spans)
        return whole.head.normed(x)

    def logits(self, outputs: Tensor) -> Tensor:
        """[rows, tokens that may be guessed]."""
        return self._whole.head.project(outputs)[:, : self._places]
