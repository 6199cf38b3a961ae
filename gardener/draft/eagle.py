"""The networks of EAGLE-1 and EAGLE-3: one layer that guesses from the target's own features.

The row of a token reads the token's embedding and a feature of the token before it: the target's
where that is known, else what this layer gave for that token. Li et al. 2024 (EAGLE), 2025
(EAGLE-3). A row stands one place before its token, as there.

Heads that `train-draft` made may have induction heads (see `train.head`): the keys of these are
those of the row before. A row hands its own on to the rows that follow it, with its output.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gardener.draft.network import DraftRows
from gardener.model.architecture import Architecture
from gardener.model.block import Block
from gardener.model.checkpoint.table import Table
from gardener.model.kernels.interface import Linear
from gardener.model.norm import rms_norm
from gardener.model.rotary import Rotary


@dataclass(frozen=True, eq=False)
class Borrowed:
    """What every kind of head has.

    shape   of its layer
    block   that layer
    fc      to the width of the layer
    table   the embedding
    head    outputs to logits
    tokens  [logits] int64, the token of each logit; None: they are numbered as the target's
    taps    the features it wants
    """

    shape: Architecture
    block: Block
    fc: Linear
    table: Table
    head: Linear
    tokens: Tensor | None
    taps: tuple[int, ...]
    rotary: Rotary
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, eq=False)
class Norms:
    """The norms of EAGLE-3, all of them root mean square ones.

    input            [width], of embeddings
    hidden           [width], of features
    last             [width], before the head
    whole            [taps * width of the target], over all features at once before `fc`, or None
    each             [taps, width of the target], over each tap's features before `fc`, or None
    before_residual  whether the normed feature goes on past attention, not the feature itself
    output           whether a row hands on what the last norm gives, not what enters it
    """

    input: Tensor
    hidden: Tensor
    last: Tensor
    whole: Tensor | None
    each: Tensor | None
    before_residual: bool
    output: bool


class _Eagle:
    name = "eagle"
    lead = 1  # the first token has no row, for there is no feature before it
    layers = 1

    def __init__(self, parts: Borrowed) -> None:
        self._parts = parts
        self.shape, self.taps, self.rotary = parts.shape, parts.taps, parts.rotary
        self.dtype, self.device, self.tokens = parts.dtype, parts.device, parts.tokens
        self.features, self.outputs = len(parts.taps), parts.shape.width

    @property
    def embeds_there(self) -> bool:
        """See `DraftNetwork`."""
        return self._parts.table.is_on(self.device)

    def embed(self, tokens: Tensor) -> Tensor:
        """See `DraftNetwork`."""
        return self._parts.table.rows(tokens).to(self.device, self.dtype)

    def logits(self, outputs: Tensor) -> Tensor:
        """See `DraftNetwork`."""
        raise NotImplementedError


class Eagle1(_Eagle):
    """The layer has no norm before attention, and the target's head reads what it gives."""

    def run(self, rows: DraftRows) -> Tensor:
        """Outputs [rows, width]."""
        x = self._parts.fc(torch.cat((rows.embedded, rows.features), -1))
        return self._parts.block(x, rows.rotations, rows.spans)

    def logits(self, outputs: Tensor) -> Tensor:
        return self._parts.head(outputs)


class Eagle3(_Eagle):
    """Attention reads embedding and feature side by side, each with a norm of its own; the feature
    alone goes on. The last norm is the head's own. EAGLE-3.1 has norms before `fc` too, and hands
    on what is normed. `induction`: how many of the key heads, the last ones, are for induction."""

    def __init__(self, parts: Borrowed, norms: Norms, induction: int = 0) -> None:
        super().__init__(parts)
        self._norms = norms
        self._plain = self.shape.kv_heads - induction  # key heads
        self.outputs += induction * self.shape.head_dim

    def run(self, rows: DraftRows) -> Tensor:
        """Outputs [rows, width + induction * head_dim]: the feature, and keys to hand on."""
        parts, norms, eps, width = self._parts, self._norms, self.shape.eps, self.shape.width
        g = self._fused(rows.features) if rows.true else rows.features[:, :width]
        embedded = rms_norm(rows.embedded, norms.input, eps)
        normed = rms_norm(g, norms.hidden, eps)
        x = torch.cat((embedded, normed), -1)
        if norms.before_residual:
            g = normed
        own: list[Tensor] = []

        def exchange(keys: Tensor) -> Tensor:
            own.append(keys[:, self._plain :].flatten(1))
            handed = self._handed(rows, own[0]).view(len(keys), -1, self.shape.head_dim)
            return torch.cat((keys[:, : self._plain], handed), 1)

        induces = exchange if self._plain < self.shape.kv_heads else None
        g = g + parts.block.attend(x, rows.rotations, rows.spans, induces)
        out = parts.block.feed(g)
        if norms.output:
            out = rms_norm(out, norms.last, eps)
        return torch.cat((out, *own), -1) if own else out

    def _fused(self, features: Tensor) -> Tensor:
        """The target's features of all taps to one, [rows, width]."""
        norms, eps = self._norms, self.shape.eps
        if norms.whole is not None:
            features = rms_norm(features, norms.whole, eps)
        if norms.each is not None:
            by_tap = features.view(-1, *norms.each.shape)
            features = rms_norm(by_tap, norms.each, eps).flatten(1)
        return self._parts.fc(features)

    def _handed(self, rows: DraftRows, own: Tensor) -> Tensor:
        """The keys of the rows before, [rows, induction * head_dim]."""
        width = self.shape.width
        if not rows.true:
            return rows.features[:, width:]
        first = torch.zeros_like(own[:1]) if rows.before is None else rows.before[:, width:]
        return torch.cat((first, own[:-1]))

    def logits(self, outputs: Tensor) -> Tensor:
        features, norms = outputs[:, : self.shape.width], self._norms
        normed = features if norms.output else rms_norm(features, norms.last, self.shape.eps)
        return self._parts.head(normed)
