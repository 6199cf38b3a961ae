"""Attention on the CPU that leaves no trace: a row gives the same bits whatever other rows are in
the pass, and wherever its ancestors are kept.

What a row sees is cut in two by its position alone (`settled`). The rows before the cut are settled
and stand in order in slots 0, 1 and so on. They are summed in blocks of LONG, and the rest in
blocks of BLOCK, each of which is one product in float32, always of the same rows of the text in the
same order; blocks are added in float64. Behind the cut, where the tree hangs, rows stand in any
slots. These are summed in float64, of whose order nothing is left after rounding: see
`wide_attention` for how sure that is. Scores are sums over one head each, and so have one order
anyway, as long as a product has enough rows: how many is tried, see `attention_trial`. This is how
deterministic decoding on GPUs splits a text, too.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.attention import MOST_SCORES, Attention, Scoring
from gardener.model.kv_cache import KVCache
from gardener.model.placement import Ints, Mask, Placement, out_of_order

BLOCK = 64
"""Positions that are summed in one product, at the end of what is summed so."""

LONG = 4 * BLOCK
"""The same before that: fewer sums are left to be added."""

SLACK = 32
"""So many positions before a row at least are summed in float64. Rows of a tree that is deeper, and
does not stand in order, take longer: their keys and values are put in order first."""


_AT_ONCE = 2**15 - BLOCK
"""Powers that are taken at once: torch does not share so few out to threads, in parts that would
not be whole vectors."""

_LOG2_E = 1.0 / math.log(2.0)


def settled(positions: Ints) -> Ints:
    """How many rows of the text are summed in blocks, for rows at these positions."""
    return np.maximum(positions - SLACK, 0) // BLOCK * BLOCK


@dataclass(frozen=True, eq=False)
class Piece:
    """Rows a..b-1 of a span that are computed together.

    first   they see none but slots first..high-1; a multiple of LONG
    low     slots first..low-1 are summed in blocks for all of them, a multiple of BLOCK
    top     slots from here on are summed in float64 for all of them, a multiple of BLOCK
    begin   slots before this are seen by all of them
    bias    [b-a, 1, high - begin] float32, 0 where a row sees one of the others, else -inf; None:
            all see all
    blocks  [b-a, 1, top - low] float32, 1 where a row sums a slot in blocks, else 0; None: top is
            low
    order   slots to be put in order first: of the text of a lone row. None: they are
    """

    a: int
    b: int
    first: int
    low: int
    top: int
    high: int
    begin: int
    bias: Tensor | None
    blocks: Tensor | None
    order: Tensor | None = None


def pieces(placement: Placement, window: int | None, most: int) -> list[Piece]:
    """The rows of a placement in pieces of at most `most` rows."""
    cuts = settled(placement.positions)
    deep = out_of_order(placement, cuts)
    made = []
    for a, b in _runs(cuts, deep, most):
        part = placement.take(range(a, b))
        if deep[a]:
            made.append(_alone(part, window, a))
        else:
            made.append(_piece(part, cuts[a:b], window, a))
    return made


def _runs(cuts: Ints, deep: Mask, most: int) -> Iterator[tuple[int, int]]:
    """Rows a..b-1 of each piece, all of which have the same long blocks; of many rows, also the
    same short ones."""
    a, rows = 0, len(cuts)
    ends = deep.copy()  # whether a piece ends before this row
    ends[1:] |= deep[:-1]
    alike = BLOCK if rows > BLOCK else LONG
    ends[1:] |= np.diff(cuts // alike) != 0
    for b in range(1, rows):
        if ends[b] or b - a == most:
            yield a, b
            a = b
    yield a, rows


def _piece(part: Placement, cuts: Ints, window: int | None, a: int) -> Piece:
    low, top, high = int(cuts.min()), int(cuts.max()), part.high
    first, begin, mask = 0, max(part.base, low), None
    if window is not None and int(part.positions.max()) >= window:
        first = min(max(int(part.positions.min()) - window + 1, 0), low) // LONG * LONG
        begin = first
        mask = part.within(window)[:, first:]
    elif part.mask is not None:
        mask = part.mask[:, begin - part.base :]
    if mask is not None:
        width = int(np.flatnonzero(mask.any(0))[-1]) + 1
        mask, high = mask[:, :width], begin + width
    bias = blocks = None
    if mask is not None and not mask.all():
        bias = torch.from_numpy(np.where(mask, np.float32(0.0), np.float32(-np.inf))).unsqueeze(1)
    if low < top:
        own = np.arange(low, top) < cuts[:, None]
        blocks = torch.from_numpy(own.astype(np.float32)).unsqueeze(1)
    return Piece(a, a + len(cuts), first, low, top, high, begin, bias, blocks)


def _alone(part: Placement, window: int | None, a: int) -> Piece:
    """A lone row whose ancestors are to be put in order."""
    slots = np.flatnonzero(part.sees[0])
    places = np.concatenate((np.arange(part.base), part.slot_positions))[slots]
    count = len(slots)
    ordered = Placement(
        slots=part.positions,
        positions=part.positions,
        base=count,
        high=count,
        mask=None,
        slot_positions=np.zeros(0, np.int64),
    )
    piece = _piece(ordered, settled(part.positions), window, a)
    order = torch.from_numpy(slots[np.argsort(places)])
    return Piece(**{**vars(piece), "order": order})


class _Blocks(NamedTuple):
    """Blocks of one width.

    slots   where their rows stand
    scores  [blocks, lines, width], of each head
    sums    [blocks, lines, head_dim], of each head
    """

    slots: slice
    width: int
    scores: list[Tensor]
    sums: list[Tensor]


class Scratch:
    """Memory for one piece, which all layers use, and views of it.

    q       [kv_heads, lines, head_dim]: lines are the rows with their heads, filled up with zeros
    scores  [kv_heads, lines, high - first], of products that have columns for whole blocks
    sums    [kv_heads, blocks, lines, head_dim] of each block
    """

    def __init__(
        self,
        piece: Piece,
        scoring: Scoring,
        kv_heads: int,
        group: int,
        head_dim: int,
        least: int,
    ) -> None:
        self.scoring = scoring
        # Powers are of 2, which takes a fifth of the time of powers of e.
        factor = (
            scoring.scale * _LOG2_E if scoring.softcap is None else scoring.scale / scoring.softcap
        )
        self.factor = torch.tensor([factor])
        rows = piece.b - piece.a
        lines, width = rows * group, piece.high - piece.first
        full = max(lines, least)
        low, top = piece.low - piece.first, piece.top - piece.first
        self.lines, self.rows, self.group = lines, rows, group
        self.q = torch.zeros(kv_heads, full, head_dim)
        self.q_by_row = self.q[:, :lines].view(kv_heads, rows, group, head_dim)
        # Whole blocks: a product with few columns may have a kernel of its own, and powers of the
        # last numbers of a tensor, if they do not fill a vector, are computed in another way.
        self.wide = -(-width // BLOCK) * BLOCK
        self.products = torch.zeros(kv_heads, full, self.wide)
        self.scores = self.products[..., :width]
        self.powers = torch.split(self.products.view(-1), _AT_ONCE)
        by_row = self.scores[:, :lines].view(kv_heads, rows, group, width)
        self.biased = by_row[..., piece.begin - piece.first :]
        self.between = by_row[..., low:top]
        self.tail = self.scores[..., low:]
        self.settled = self.scores[..., :top].view(kv_heads, full, top // BLOCK, BLOCK)
        long = top // LONG * LONG
        count = long // LONG + (top - long) // BLOCK
        self.sums = torch.empty(kv_heads, count, full, head_dim)
        self.blocks = [
            self._blocks(piece.first, start, end, width)
            for start, end, width in ((0, long, LONG), (long, top, BLOCK))
            if end > start
        ]

    def _blocks(self, first: int, start: int, end: int, width: int) -> "_Blocks":
        """Columns start..end-1 of the scores in blocks of this width."""
        kv_heads, full = self.scores.shape[:2]
        count = (end - start) // width
        scores = self.scores[..., start:end].view(kv_heads, full, count, width).transpose(1, 2)
        before = start // LONG
        return _Blocks(
            slots=slice(first + start, first + end),
            width=width,
            scores=list(scores),
            sums=list(self.sums[:, before : before + count]),
        )


class ExactSpan:
    """Rows of one request, which are the rows first..end-1 of the pass. See `CachedRows`."""

    def __init__(
        self,
        placement: Placement,
        cache: KVCache,
        heads: int,
        least: int,
        *,
        first: int = 0,
        windows: Collection[int | None] = (None,),
    ) -> None:
        """Makes room for the rows in the cache.

        heads    of the queries
        least    lines that a product has at least, see `attention_trial`
        first    row of the pass at which they begin
        windows  sliding windows of the layers that will ask
        """
        cache.reserve(placement.high, BLOCK)
        self.first, self.end = first, first + len(placement.slots)
        self._cache, self._least = cache, least
        self._slots = torch.from_numpy(placement.slots)
        most = min(max(16, MOST_SCORES // (heads * placement.high)), BLOCK)
        self._pieces: Mapping[int | None, list[Piece]] = {
            window: pieces(placement, window, most) for window in windows
        }
        self._scratch: dict[int | None, Scratch] = {}

    def attend(self, layer: int, attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `CachedRows`."""
        self._cache.write(layer, self._slots, k, v)
        keys, values = self._cache.read(layer)
        parts = [
            self._seen(piece, attention, q[piece.a : piece.b], keys, values)
            for piece in self._pieces[attention.window]
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _seen(
        self, piece: Piece, attention: Attention, q: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        _, heads, head_dim = q.shape
        scratch = self._scratch.get(attention.window)
        if scratch is None or len(self._pieces[attention.window]) > 1:  # those would add up
            group = heads // len(keys)
            scratch = Scratch(piece, attention.scoring, len(keys), group, head_dim, self._least)
            self._scratch[attention.window] = scratch
        if piece.order is not None:
            keys, values = keys.index_select(1, piece.order), values.index_select(1, piece.order)
        return seen(piece, scratch, q, keys, values)


def seen(piece: Piece, scratch: Scratch, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What the queries [rows, heads, head_dim] see of keys and values [kv_heads, slots, head_dim]:
    [rows, heads * head_dim] in the dtype of the queries."""
    s, scores, softcap = scratch, scratch.scores, scratch.scoring.softcap
    kv_heads, _, head_dim = keys.shape
    by_head = q.view(s.rows, kv_heads, s.group, head_dim).transpose(0, 1)
    torch.mul(by_head, s.factor, out=s.q_by_row)
    keys = keys[:, piece.first : piece.first + s.wide]
    if keys.shape[1] < s.wide:
        keys = F.pad(keys, (0, 0, 0, s.wide - keys.shape[1]))
    torch.bmm(s.q, keys.transpose(1, 2), out=s.products)
    if softcap is not None:
        scores.tanh_().mul_(softcap * _LOG2_E)
    if piece.bias is not None:
        s.biased.add_(piece.bias)
    s.products.sub_(scores.amax(-1, keepdim=True))
    for part in s.powers:
        part.exp2_()
    tail = s.tail.double()
    if piece.blocks is not None:
        s.between.mul_(piece.blocks)
        by_row = tail[:, : s.lines].view(kv_heads, s.rows, s.group, -1)
        by_row[..., : piece.top - piece.low].mul_(1.0 - piece.blocks)
    total = tail.sum(-1, keepdim=True)
    behind = values[:, piece.low : piece.high].double()
    if s.blocks:
        total += s.settled.sum(-1).sum(-1, keepdim=True, dtype=torch.float64)
        for blocks in s.blocks:
            before = values[:, blocks.slots].view(kv_heads, -1, blocks.width, head_dim)
            for own, of_head, sums in zip(before, blocks.scores, blocks.sums, strict=True):
                torch.bmm(of_head, own, out=sums)
        summed = s.sums.sum(1, dtype=torch.float64).baddbmm_(tail, behind)
    else:
        summed = torch.bmm(tail, behind)
    summed.div_(total)
    by_row = summed[:, : s.lines].view(kv_heads, s.rows, s.group, head_dim).transpose(0, 1)
    return by_row.reshape(s.rows, -1).to(q.dtype)
