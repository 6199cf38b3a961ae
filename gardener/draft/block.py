"""The networks of one-pass heads: all levels of guesses in one pass (DFlash: arXiv 2602.06036;
DSpark: arXiv 2607.05147).

The target's features of each token become keys and values in every layer, once and for all: the
context. A block is the last certain token, the anchor, and masks behind it. Its rows see the
context and each other, also those behind them, and are computed anew for every anchor. So what is
said of a place depends on its distance from the anchor alone, not on the guesses between; a Markov
head adds what the token before makes likelier.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.attention import Span, quick_attention
from gardener.model.block import Block
from gardener.model.checkpoint.table import Table
from gardener.model.kernels.interface import Linear
from gardener.model.kv_cache import KVCache
from gardener.model.norm import rms_norm
from gardener.model.rotary import Rotary, Rotations, rotate


@dataclass(frozen=True, eq=False)
class BlockLayer:
    """One layer. kv: keys and values of the context, with the weights that `block` has for those of
    its own rows; k_norm: over the heads of the keys."""

    block: Block
    kv: Linear
    k_norm: Tensor


@dataclass(frozen=True, eq=False)
class Markov:
    """What a token adds to the logits of the next one: `after` of `before`'s row for it.

    before  [vocab, rank]
    after   rank to logits
    """

    before: Tensor
    after: Linear


@dataclass(frozen=True, eq=False)
class BlockParts:
    """What such a network is made of.

    fc           features of all taps to the width of the layers
    hidden_norm  [width], of what `fc` gives
    norm         [width], before the head
    table        the embedding
    head         outputs to logits
    tokens       [logits] int64, the token of each logit; None: they are numbered as the target's
    size, mask, follows   see `block_config.StatedBlock`
    """

    name: str
    shape: Architecture
    layers: Sequence[BlockLayer]
    fc: Linear
    hidden_norm: Tensor
    norm: Tensor
    table: Table
    head: Linear
    markov: Markov | None
    tokens: Tensor | None
    taps: tuple[int, ...]
    size: int
    mask: int
    follows: bool
    rotary: Rotary
    dtype: torch.dtype
    device: torch.device


class BlockNetwork:
    """Holds weights only, so any number of texts may share it.

    parts   all of them
    levels  how many tokens ahead of the anchor it guesses
    """

    def __init__(self, parts: BlockParts) -> None:
        self.parts = parts
        self.name, self.taps, self.tokens = parts.name, parts.taps, parts.tokens
        self.dtype, self.device = parts.dtype, parts.device
        self.shape, self.rotary, self.layers = parts.shape, parts.rotary, len(parts.layers)
        self.outputs = parts.shape.width  # numbers that a row gives
        self.levels = parts.size if parts.follows else parts.size - 1

    def cache(self) -> KVCache:
        """For one text: the token at place i has slot i."""
        parts = self.parts
        return KVCache(len(parts.layers), parts.shape, parts.dtype, parts.device)

    @property
    def embeds_there(self) -> bool:
        """Whether `embed` reads what is on the device only, and never waits for it."""
        return self.parts.table.is_on(self.device)

    def embed(self, tokens: Tensor) -> Tensor:
        """[rows] int64 to [rows, width], on the device."""
        return self.parts.table.rows(tokens).to(self.device, self.dtype)

    def context(self, cache: KVCache, features: Tensor, first: int) -> None:
        """Put into the cache what the layers see of the tokens at places `first` and so on, from
        the target's features [tokens, taps * width]."""
        places = self._places(cache, first, len(features))
        rotations = self.parts.rotary.at(places, first + len(features) - 1)
        self.see(cache, features, places, rotations)

    def see(self, cache: KVCache, features: Tensor, places: Tensor, rotations: Rotations) -> None:
        """The same at any places [tokens] that the cache has, with their rotations."""
        parts, shape, [rotation] = self.parts, self.parts.shape, rotations
        x = rms_norm(parts.fc(features), parts.hidden_norm, shape.eps)
        for index, layer in enumerate(parts.layers):
            kv = layer.kv(x).view(len(x), 2, shape.kv_heads, shape.head_dim)
            keys = rotate(rms_norm(kv[:, 0], layer.k_norm, shape.eps), rotation)
            cache.write(index, places, keys, kv[:, 1])

    def block(self, cache: KVCache, anchor: int, place: int) -> Tensor:
        """Outputs [levels, width] after the token `anchor` at this place, whose context is there.
        Row i is of the guesses that are i+1 tokens behind it."""
        parts, end = self.parts, place + self.parts.size
        places = self._places(cache, place, parts.size)
        rotations = parts.rotary.at(places, end - 1)
        kernel = quick_attention(self.device)
        span = Span(0, parts.size, cache, kernel, places, end, {None: None})
        x = self.run(self.embed(torch.tensor(self.tokens_of(anchor))), rotations, span)
        return self.normed(x if parts.follows else x[1:])

    def tokens_of(self, anchor: int) -> list[int]:
        """The tokens of a block."""
        return [anchor, *[self.parts.mask] * (self.parts.size - 1)]

    def run(self, embedded: Tensor, rotations: Rotations, span: Span) -> Tensor:
        """The layers over a block, [size, width] to the same."""
        x = embedded
        for layer in self.parts.layers:
            x = layer.block(x, rotations, [span])
        return x

    def normed(self, x: Tensor) -> Tensor:
        """What the layers give to outputs, [rows, width]."""
        return rms_norm(x, self.parts.norm, self.parts.shape.eps)

    def logits(self, outputs: Tensor, before: Tensor) -> Tensor:
        """[rows, width] to [rows, places], where `before` [rows] is the token before each guess."""
        parts = self.parts
        logits = parts.head(outputs)
        if parts.markov is not None:
            rows = F.embedding(before.to(self.device), parts.markov.before)
            logits = logits + parts.markov.after(rows)
        return logits

    def _places(self, cache: KVCache, first: int, count: int) -> Tensor:
        cache.reserve(first + count)
        return torch.arange(first, first + count, device=self.device)
