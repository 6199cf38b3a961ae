"""What the rows of a filled pass see, with the same bits in every size of a pass.

The settled text stands in order in slots 0, 1 and so on: chunks of it are the batch of one kernel,
and each row masks what is behind its own cut. Its tail is gathered from wherever it stands: rows
are the batch of the same kernel. So what is added up for a row, and in which order, follows from
its position alone. How the parts are put together is told by the logarithms of their sums of
exponentials (lse): a chunk that is masked altogether gets a weight of 0.

Nothing here waits for the device, and no size depends on a value, so that it can be recorded. What
layers share is computed once a pass. A layer starts 12 kernels: 2 to write, 1 for queries of
groups, 2 for the gathered keys and values, 2 for both parts, 5 to put the parts together (1 if
there are no chunks).
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.errors import LocalError
from gardener.model.attention import Attention, Scoring
from gardener.model.device.frame import CUT, FIRST_OF_TAIL, POSITION, SLOT
from gardener.model.device.sizes import CHUNK, TAIL

_UNSEEN = {torch.float16: -6e4}
"""What is added to a score so that nothing is left of it: finite, or a masked chunk would be no
number."""

Kernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""Queries [batch, heads, lines, head_dim], keys and values [batch, heads, slots, head_dim], a bias
[batch, heads, lines, slots] of their dtype, and the scale of scores, to what the queries see
[batch, heads, lines, head_dim] and the lse [batch, heads, lines] in float32, or both in float64.
Strides are free, but for the last of each."""

Choose: TypeAlias = Callable[[torch.device, torch.dtype, Scoring], Kernel]


class Kept(Protocol):
    """Where keys and values are, see `KVCache`; none of it moves as long as rows look back."""

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None: ...

    def read(self, layer: int) -> tuple[Tensor, Tensor]: ...


def efficient(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The memory-efficient kernel of torch, for CUDA. See `Kernel`."""
    op = torch.ops.aten._scaled_dot_product_efficient_attention
    out, lse, *_ = op(q, k, v, bias, True, 0.0, False, scale=scale)
    return out, lse[..., : q.shape[2]]  # its lines are filled up


def by_hand(
    softcap: float | None, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """In plain steps, for softcaps and for devices without the other one. See `Kernel`.

    In float64 where the device knows it, of whose order of sums nothing is left after rounding; on
    most GPUs that runs at a thirty-second or a sixty-fourth of the speed of float32, which models
    with a softcap pay for.
    """
    wide = torch.float32 if q.device.type == "mps" else torch.float64
    scores = torch.matmul(q.to(wide), k.to(wide).transpose(-1, -2))
    scores = Scoring(scale, softcap)(scores).add_(bias)
    lse = torch.logsumexp(scores, -1, keepdim=True)
    seen = torch.matmul(scores.sub_(lse).exp_(), v.to(wide))
    return seen, lse.squeeze(-1)


def kernel_for(device: torch.device, dtype: torch.dtype, scoring: Scoring) -> Kernel:
    """The kernel that keeps to one order of sums, as far as it is known: see `look_trial`."""
    if device.type == "cuda" and scoring.softcap is None and _has_efficient(device, dtype):
        return efficient
    return partial(by_hand, scoring.softcap)


@cache
def _has_efficient(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this build of torch has the kernel for this device, in this dtype: for GPUs before
    Ampere it has none in bfloat16. Tried out, not guessed."""
    few = torch.zeros(1, 1, 16, 64, dtype=dtype, device=device)
    try:
        efficient(few, few, few, few[..., :16].contiguous(), 1.0)
    except torch.OutOfMemoryError:  # says nothing of the kernel
        raise
    except (RuntimeError, AttributeError):
        return False
    return True


class _Biases(NamedTuple):
    """What is added to scores: 0 where a row sees, else a large negative number.

    settled  [chunks, 1, rows * group, CHUNK]; None: there are no chunks
    tail     [rows, 1, 1, TAIL]
    """

    settled: Tensor | None
    tail: Tensor


class FilledRows:
    """Rows of one request, which are the rows first..end-1 of the pass. See `CachedRows`.

    They are as many as the table has, whether they stand for something or fill it up.
    """

    def __init__(
        self,
        ints: Tensor,
        cache: Kept,
        chunks: int,
        *,
        first: int = 0,
        order: Tensor | None = None,
        choose: Choose = kernel_for,
    ) -> None:
        """
        ints    [rows, COLUMNS] int64, on the device: see `Frame`
        chunks  so many chunks hold the settled text of each row, see `sizes.chunks`
        first   row of the pass at which they begin
        order   [cut] or more, on the device: slots of the settled text of a lone row that does not
                stand in order; None: it does

        Raises LocalError if the chunks do not hold what is in order.
        """
        if order is not None and len(order) > chunks * CHUNK:
            raise LocalError(f"{len(order)} rows of text in {chunks} chunks of {CHUNK}")
        self.first, self.end = first, first + len(ints)
        self._cache, self._chunks, self._choose = cache, chunks, choose
        self._slots = ints[:, SLOT].contiguous()
        self._tails = ints[:, FIRST_OF_TAIL : FIRST_OF_TAIL + TAIL].reshape(-1)
        self._position, self._cut = ints[:, POSITION, None], ints[:, CUT, None]
        self._order = None if order is None else F.pad(order, (0, chunks * CHUNK - len(order)))
        self._biases: dict[int | None, _Biases] = {}

    def attend(self, layer: int, attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `CachedRows`. Raises LocalError if the cache does not hold the chunks."""
        self._cache.write(layer, self._slots, k, v)
        keys, values = self._cache.read(layer)
        kernel = self._choose(q.device, keys.dtype, attention.scoring)
        scale, dtype = attention.scoring.scale, q.dtype
        rows, heads, head_dim = q.shape
        kv_heads = len(keys)
        group = heads // kv_heads
        q = q.to(keys.dtype).view(rows, kv_heads, group, head_dim)
        biases = self._biases.get(attention.window)
        if biases is None:
            biases = self._biases[attention.window] = self._bias(attention.window, group, q.dtype)
        out, lse = kernel(
            q,
            self._gathered(keys),
            self._gathered(values),
            biases.tail.expand(-1, kv_heads, group, -1),
            scale,
        )
        if biases.settled is None:
            return out.reshape(rows, -1).to(dtype)
        lines = q.transpose(0, 1).reshape(1, kv_heads, rows * group, head_dim)
        settled, settled_lse = kernel(
            lines.expand(self._chunks, -1, -1, -1),
            self._in_chunks(keys),
            self._in_chunks(values),
            biases.settled.expand(-1, kv_heads, -1, -1),
            scale,
        )
        made = torch.empty(rows, kv_heads, group, head_dim, dtype=dtype, device=q.device)
        _merge(out, lse, settled, settled_lse, made)
        return made.view(rows, -1)

    def _gathered(self, entries: Tensor) -> Tensor:
        """Those of the tails: [rows, kv_heads, TAIL, head_dim]."""
        return _in_parts(entries.index_select(1, self._tails), TAIL)

    def _in_chunks(self, entries: Tensor) -> Tensor:
        """Those of the settled text: [chunks, kv_heads, CHUNK, head_dim]."""
        size = self._chunks * CHUNK
        if self._order is not None:
            entries = entries.index_select(1, self._order)
        if entries.shape[1] < size:
            raise LocalError(f"{size} slots of a cache that has {entries.shape[1]}")
        return _in_parts(entries[:, :size], CHUNK)

    def _bias(self, window: int | None, group: int, dtype: torch.dtype) -> _Biases:
        tail = self._seen(self._cut, self._position + 1, TAIL, window, dtype)
        if not self._chunks:
            return _Biases(None, tail[:, None, None])
        start = torch.zeros_like(self._cut)
        settled = self._seen(start, self._cut, self._chunks * CHUNK, window, dtype)
        by_chunk = settled.view(-1, self._chunks, 1, CHUNK).transpose(0, 1)
        lines = by_chunk.expand(-1, -1, group, -1).flatten(1, 2)
        return _Biases(lines.unsqueeze(1), tail[:, None, None])

    def _seen(
        self, start: Tensor, end: Tensor, width: int, window: int | None, dtype: torch.dtype
    ) -> Tensor:
        """The bias of `width` places of the text from `start` [rows, 1] on, of which those before
        `end` [rows, 1] are seen: [rows, width]."""
        places = start + torch.arange(width, device=start.device)
        unseen = places >= end
        if window is not None:
            unseen |= places <= self._position - window
        bias = torch.zeros(unseen.shape, dtype=dtype, device=start.device)
        return bias.masked_fill_(unseen, _UNSEEN.get(dtype, -1e30))


def _in_parts(entries: Tensor, size: int) -> Tensor:
    """[kv_heads, slots, head_dim] as a batch of parts of so many slots: [parts, kv_heads, size,
    head_dim], without a copy."""
    kv_heads, slots, head_dim = entries.shape
    return entries.view(kv_heads, slots // size, size, head_dim).transpose(0, 1)


def _merge(
    tail: Tensor, tail_lse: Tensor, settled: Tensor, settled_lse: Tensor, out: Tensor
) -> None:
    """Put the parts together.

    tail     [rows, kv_heads, group, head_dim]; tail_lse, out: alike
    settled  [chunks, kv_heads, rows * group, head_dim]; settled_lse: alike
    """
    rows, kv_heads, group, head_dim = tail.shape
    by_row = (-1, kv_heads, rows, group)
    parts = (tail_lse.transpose(0, 1)[None], settled_lse.view(by_row))
    weights = torch.cat(parts).softmax(0).unsqueeze(-1)
    before = settled.view(*by_row, head_dim) * weights[1:]
    summed = before[0] if len(before) == 1 else before.sum(0)
    torch.addcmul(summed, tail.transpose(0, 1), weights[0], out=out.transpose(0, 1))
