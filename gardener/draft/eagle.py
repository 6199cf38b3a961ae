"""The networks of EAGLE-1 and EAGLE-3: one layer that guesses from the target's own features.

The row of a token reads the token's embedding and a feature of the token before it: the target's
where that is known, else what this layer gave for that token. Li et al. 2024 (EAGLE), 2025
(EAGLE-3). A row stands one place before its token, as there.

Heads that `train-draft` made may have induction heads (see `train.head`): the keys of these are
those of the row before. A row hands its own on to the rows that follow it, with its output.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.draft.network import DraftRows
from gardener.model.architecture import Architecture
from gardener.model.block import Block
from gardener.model.kernels.interface import Linear
from gardener.model.norm import rms_norm
from gardener.model.rotary import Rotary


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
        self.dtype, self.device, self.tokens = parts.dtype, parts.device, parts.tokens
        self.features = len(parts.taps)

    def _embed(self, tokens: Sequence[int]) -> Tensor:
        table = self._parts.table
        rows = F.embedding(torch.tensor(tokens).to(table.device), table)
        return rows.to(self.device, self.dtype)

    def logits(self, outputs: Tensor) -> Tensor:
        """See `DraftNetwork`."""
        raise NotImplementedError


class Eagle1(_Eagle):
    """The layer has no norm before attention, and the target's head reads what it gives."""

    def run(self, rows: DraftRows) -> Tensor:
        """Outputs [rows, width]."""
        x = self._parts.fc(torch.cat((self._embed(rows.tokens), rows.features), -1))
        return self._parts.block(x, rows.rotations, rows.spans)

    def logits(self, outputs: Tensor) -> Tensor:
        return self._parts.head(outputs)


class Eagle3(_Eagle):
    """Attention reads embedding and feature side by side, each with a norm of its own; the feature
    alone goes on. The last norm is the head's own. `induction`: how many of the key heads, the
    last ones, are for induction."""

    def __init__(
        self,
        parts: Borrowed,
        input_norm: Tensor,
        hidden_norm: Tensor,
        norm: Tensor,
        induction: int = 0,
    ) -> None:
        super().__init__(parts)
        self._input_norm, self._hidden_norm, self._norm = input_norm, hidden_norm, norm
        self._plain = self.shape.kv_heads - induction  # key heads

    def run(self, rows: DraftRows) -> Tensor:
        """Outputs [rows, width + induction * head_dim]: the feature, and keys to hand on."""
        parts, eps, width = self._parts, self.shape.eps, self.shape.width
        g = parts.fc(rows.features) if rows.true else rows.features[:, :width]
        embedded = rms_norm(self._embed(rows.tokens), self._input_norm, eps)
        x = torch.cat((embedded, rms_norm(g, self._hidden_norm, eps)), -1)
        own: list[Tensor] = []

        def exchange(keys: Tensor) -> Tensor:
            own.append(keys[:, self._plain :].flatten(1))
            handed = self._handed(rows, own[0]).view(len(keys), -1, self.shape.head_dim)
            return torch.cat((keys[:, : self._plain], handed), 1)

        induces = exchange if self._plain < self.shape.kv_heads else None
        g = g + parts.block.attend(x, rows.rotations, rows.spans, induces)
        return torch.cat((parts.block.feed(g), *own), -1) if own else parts.block.feed(g)

    def _handed(self, rows: DraftRows, own: Tensor) -> Tensor:
        """The keys of the rows before, [rows, induction * head_dim]."""
        width = self.shape.width
        if not rows.true:
            return rows.features[:, width:]
        first = torch.zeros_like(own[:1]) if rows.before is None else rows.before[:, width:]
        return torch.cat((first, own[:-1]))

    def logits(self, outputs: Tensor) -> Tensor:
        features = outputs[:, : self.shape.width]
        return self._parts.head(rms_norm(features, self._norm, self.shape.eps))
