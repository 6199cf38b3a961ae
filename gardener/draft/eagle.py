"""The networks of EAGLE-1 and EAGLE-3: one layer that guesses from the target's own features.

The row of a token reads the token's embedding and a feature of the token before it: the target's
where that is known, else what this layer gave for that token. Li et al. 2024 (EAGLE), 2025
(EAGLE-3). A row stands one place before its token, as there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.draft.incremental import Batch
from gardener.stages.architecture import Architecture
from gardener.stages.linear import Linear
from gardener.stages.llama import Block, rms_norm
from gardener.stages.rotary import Rotary


@dataclass(frozen=True, eq=False)
class Borrowed:
    """What every kind of head has.

    shape   of its layer
    block   that layer
    fc      to the width of the layer
    table   [vocab, width], embedding
    head    outputs to logits
    tokens  [logits] int64, the token of each logit; None: they are numbered as the target's
    taps    the features it wants
    """

    shape: Architecture
    block: Block
    fc: Linear
    table: Tensor
    head: Linear
    tokens: Tensor | None
    taps: tuple[int, ...]
    rotary: Rotary
    dtype: torch.dtype
    device: torch.device


class _Eagle:
    name = "eagle"
    lead = 1  # the first token has no row, for there is no feature before it
    layers = 1

    def __init__(self, parts: Borrowed) -> None:
        self._parts = parts
        self.shape, self.taps, self.rotary = parts.shape, parts.taps, parts.rotary
        self.dtype, self.device = parts.dtype, parts.device
        self.features = len(parts.taps)

    def _embed(self, tokens: Sequence[int]) -> Tensor:
        table = self._parts.table
        rows = F.embedding(torch.tensor(tokens).to(table.device), table)
        return rows.to(self.device, self.dtype)

    def logits(self, outputs: Tensor) -> Tensor:
        """[rows, width] to [rows, logits]."""
        raise NotImplementedError

    def guesses(self, outputs: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The likeliest tokens after each row, and the natural logs of their probabilities."""
        logits = self.logits(outputs).float()
        log_q, places = torch.log_softmax(logits, -1).topk(min(count, logits.shape[-1]), -1)
        return (places if self._parts.tokens is None else self._parts.tokens[places]), log_q


class Eagle1(_Eagle):
    """The layer has no norm before attention, and the target's head reads what it gives."""

    def run(self, batch: Batch) -> Tensor:
        """Outputs [rows, width]."""
        x = self._parts.fc(torch.cat((self._embed(batch.tokens), batch.features), -1))
        return self._parts.block(x, batch.cos, batch.sin, batch.spans)

    def logits(self, outputs: Tensor) -> Tensor:
        return self._parts.head(outputs)


class Eagle3(_Eagle):
    """Attention reads embedding and feature side by side, each with a norm of its own; the feature
    alone goes on. The last norm is the head's own."""

    def __init__(self, parts: Borrowed, input_norm: Tensor, hidden_norm: Tensor, norm: Tensor):
        super().__init__(parts)
        self._input_norm, self._hidden_norm, self._norm = input_norm, hidden_norm, norm

    def run(self, batch: Batch) -> Tensor:
        """Outputs [rows, width]."""
        parts, eps = self._parts, self.shape.eps
        g = parts.fc(batch.features) if batch.true else batch.features
        embedded = rms_norm(self._embed(batch.tokens), self._input_norm, eps)
        x = torch.cat((embedded, rms_norm(g, self._hidden_norm, eps)), -1)
        return parts.block.feed(g + parts.block.attend(x, batch.cos, batch.sin, batch.spans))

    def logits(self, outputs: Tensor) -> Tensor:
        return self._parts.head(rms_norm(outputs, self._norm, self.shape.eps))
