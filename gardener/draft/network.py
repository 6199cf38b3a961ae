"""What a drafter needs of its network: rows go in, outputs for guesses and later rows come out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.attention import Span
from gardener.model.rotary import Rotary, Rotations


@dataclass(frozen=True, eq=False)
class DraftRows:
    """Rows for one pass of a network.

    embedded  [rows, width] of their tokens, see `DraftNetwork.embed`
    features  [rows, taps * width] of the target if `true`, else [rows, outputs] of the network
              itself for the tokens before
    before    [1, outputs] of the network for the token before the first, if these are `true` (such
              rows follow one another) and there is such a row
    rotations their rotation
    spans     what they write and see
    """

    embedded: Tensor
    features: Tensor
    true: bool
    before: Tensor | None
    rotations: Rotations
    spans: Sequence[Span]


class DraftNetwork(Protocol):
    """Guesses from rows. It holds weights only, so any number of texts may share it."""

    name: str
    lead: int  # tokens at the beginning of the text that have no row
    layers: int
    shape: Architecture
    taps: tuple[int, ...]
    outputs: int  # numbers that a row hands on
    rotary: Rotary
    dtype: torch.dtype
    device: torch.device
    tokens: Tensor | None  # [places] int64, the token of each logit; None: numbered as the target's

    @property
    def embeds_there(self) -> bool:
        """Whether `embed` reads what is on the device only, and never waits for it."""
        ...

    def embed(self, tokens: Tensor) -> Tensor:
        """[rows] int64 to [rows, width], on the device."""
        ...

    def run(self, rows: DraftRows) -> Tensor:
        """Outputs [rows, outputs]: what guesses and later rows need of these."""

    def logits(self, outputs: Tensor) -> Tensor:
        """[rows, outputs] to [rows, places], of what may follow each row."""
        ...
