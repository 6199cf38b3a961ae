"""The whole target on one machine, writing many texts at once, one token of each per pass.

A *lane* is a row of the batch with a cache of its own. Lanes begin and end independently: when one
text has ended, the next one starts in its lane at position 0 and overwrites what was there. A given
token may be fed like one that was written, since the pass over all lanes is made anyway. Many given
tokens are faster in a pass of their own.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.attention import Attention, CachedRows, attend, fused_attention
from gardener.model.loader import Whole

TOP_K = 64
"""How many of the likeliest tokens one is drawn from."""

LIKELY = 16
"""How many of the likeliest tokens are kept with their probabilities."""


PickOfLanes: TypeAlias = Callable[[Tensor], list[int]]
"""From logits [lanes, vocabulary], float32, to what each lane writes."""


class Kept(NamedTuple):
    """What is kept of the tokens of a text.

    features  [tokens, taps * width]. Tap k is the hidden state that enters layer k; tap `layers` is
              what the head reads, the last hidden state after the final norm
    likely    [tokens, LIKELY] int32, the likeliest next tokens, likeliest first
    odds      [tokens, LIKELY] float16, their probabilities

    Tokens that were read many at once have features only, and zeros for the rest.
    """

    features: Tensor
    likely: Tensor
    odds: Tensor


class _RowPerLane:
    """Attention of one row of each lane, see `attention.CachedRows`."""

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        positions: Tensor,
        high: int,
        windows: Collection[int | None],
    ) -> None:
        self.first, self.end = 0, len(positions)
        self._keys, self._values, self._high = keys, values, high
        self._lanes = torch.arange(len(positions), device=positions.device)
        self._positions = positions
        self._biases = _biases(positions, high, windows)

    def attend(
        self,
        layer: int,
        attention: Attention,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Tensor:
        """Takes kernels of its own: those for a single request are of no use for a batch."""
        keys, values = self._keys[layer], self._values[layer]
        keys[self._lanes, :, self._positions] = k
        values[self._lanes, :, self._positions] = v
        keys, values = keys[:, :, : self._high], values[:, :, : self._high]
        lanes, kv_heads, _, size = keys.shape
        shared, bias = q.view(lanes, kv_heads, -1, size), self._biases[attention.window]
        scoring = attention.scoring
        if scoring.softcap is None:
            seen = F.scaled_dot_product_attention(
                shared, keys, values, attn_mask=bias.to(q.dtype)[:, None, None], scale=scoring.scale
            )
        else:
            scores = scoring((shared @ keys.transpose(2, 3)).float()) + bias[:, None, None]
            seen = torch.softmax(scores, -1).to(q.dtype) @ values
        return seen.reshape(lanes, -1)


class _RowsOfLane:
    """Attention of consecutive rows of one lane, see `attention.CachedRows`."""

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        lane: int,
        positions: Tensor,
        windows: Collection[int | None],
    ) -> None:
        self.first, self.end = 0, len(positions)
        self._keys, self._values, self._lane = keys, values, lane
        begin = int(positions[0])
        self._new, self._high = slice(begin, begin + self.end), begin + self.end
        self._biases = _biases(positions, self._high, windows)

    def attend(
        self,
        layer: int,
        attention: Attention,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Tensor:
        """As for one row of each lane."""
        keys, values = self._keys[layer, self._lane], self._values[layer, self._lane]
        keys[:, self._new] = k.transpose(0, 1)
        values[:, self._new] = v.transpose(0, 1)
        return attend(
            fused_attention,
            attention.scoring,
            q,
            keys[:, : self._high],
            values[:, : self._high],
            self._biases[attention.window],
        )


def _biases(
    positions: Tensor, high: int, windows: Collection[int | None]
) -> dict[int | None, Tensor]:
    """For rows at these positions [rows], by sliding window: [rows, high] float32, 0 for what a row
    sees of the positions below `high`, and -inf for what it does not."""
    distance = positions[:, None] - torch.arange(high, device=positions.device)
    biases = {}
    for window in windows:
        unseen = distance < 0
        if window is not None:
            unseen |= distance >= window
        bias = torch.zeros(unseen.shape, device=positions.device)
        biases[window] = bias.masked_fill_(unseen, -torch.inf)
    return biases


class BatchDecoder:
    """`count` lanes of at most `room` tokens.

    taps: which features to keep of every token, see `Kept`.
    """

    def __init__(self, whole: Whole, count: int, room: int, taps: Sequence[int], seed: int) -> None:
        architecture = whole.architecture
        self._windows = frozenset(architecture.windows)
        self._whole, self.taps, self.count, self.room = whole, tuple(taps), count, room
        dtype, device = whole.head.dtype, whole.head.device
        size = (architecture.layers, count, architecture.kv_heads, room, architecture.head_dim)
        self._keys = torch.zeros(size, dtype=dtype, device=device)
        self._values = torch.zeros(size, dtype=dtype, device=device)
        likely = min(LIKELY, architecture.vocab)
        self._kept = Kept(
            torch.zeros(count, room, len(taps) * architecture.width, dtype=dtype),
            torch.zeros(count, room, likely, dtype=torch.int32),
            torch.zeros(count, room, likely, dtype=torch.float16),
        )
        self._random = torch.Generator(device).manual_seed(seed)

    @torch.inference_mode()
    def step(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        temperatures: Sequence[float],
        pick: PickOfLanes | None = None,
    ) -> list[int]:
        """Feed every lane its token at its position; returns what each would write next.

        temperatures: per lane, 0 for the likeliest token. `pick` chooses, if there is one, and the
        temperatures mean nothing.
        """
        at = torch.tensor(positions, device=self._keys.device)
        high = max(positions) + 1
        x, features = self._run(
            tokens, at, high, _RowPerLane(self._keys, self._values, at, high, self._windows)
        )
        logits = self._whole.head.project(x).float()
        top, ids = logits.topk(min(TOP_K, logits.shape[-1]), -1)
        odds = (top - logits.logsumexp(-1, keepdim=True)).exp()
        for there, new in zip(self._kept, (features, ids, odds), strict=True):
            there[torch.arange(self.count), at.cpu()] = new[:, : there.shape[-1]].to(
                "cpu", there.dtype
            )
        if pick is not None:
            return pick(logits)
        return self._draw(top, ids, torch.tensor(temperatures, device=at.device))

    @torch.inference_mode()
    def read(self, lane: int, first: int, tokens: Sequence[int]) -> None:
        """Feed one lane these tokens in one pass, from position `first` on. What would be written
        after them is not computed."""
        at = torch.arange(first, first + len(tokens), device=self._keys.device)
        chunk = _RowsOfLane(self._keys, self._values, lane, at, self._windows)
        _, features = self._run(tokens, at, first + len(tokens), chunk)
        self._kept.features[lane, at.cpu()] = features.to("cpu", self._kept.features.dtype)

    def _run(
        self, tokens: Sequence[int], at: Tensor, high: int, rows: CachedRows
    ) -> tuple[Tensor, Tensor]:
        """What the head reads of these rows, and the features that are to be kept of them."""
        whole = self._whole
        x = whole.embed(tokens)
        rotations = whole.rotary.at(at, high - 1)
        kept = {}
        for layer, block in enumerate(whole.blocks):
            if layer in self.taps:
                kept[layer] = x
            x = block(x, rotations, [rows])
        kept[len(whole.blocks)] = x = whole.head.normed(x)
        return x, torch.cat([kept[tap] for tap in self.taps], -1)

    def kept(self, lane: int, length: int) -> Kept:
        """A copy of what is kept of the first tokens of a lane."""
        return Kept(*(tensor[lane, :length].clone() for tensor in self._kept))

    def _draw(self, top: Tensor, ids: Tensor, temperatures: Tensor) -> list[int]:
        """One token per lane, from the highest logits and their tokens [lanes, TOP_K]."""
        picks = ids[:, 0].clone()
        drawn = temperatures.nonzero().squeeze(1)
        if len(drawn):
            odds = torch.softmax(top[drawn] / temperatures[drawn, None], -1)
            chosen = torch.multinomial(odds, 1, generator=self._random)
            picks[drawn] = ids[drawn].gather(1, chosen).squeeze(1)
        return picks.tolist()
