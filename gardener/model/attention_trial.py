"""How many lines products of attention must have, so that a row has one order of sums on this CPU.

Libraries of matrix products take a kernel by the number of lines, columns and threads, and each may
add up in another order. So attention is tried on its real heads with the threads that are set, when
a stage is built: rows alone and among others, after short and long texts, in order and out of it.
What the rows look back on makes sums that cancel, of numbers of all sizes: what is left is the
error of the order itself.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.errors import LocalError
from gardener.model.attention import Scoring
from gardener.model.exact_attention import BLOCK, LONG, SLACK, Scratch, pieces, seen, settled
from gardener.model.placement import Placement

_LEAST = (4, 8, 16)
"""Lines that are tried."""

_ROWS = (1, 2, 3, 5, 9, 17, 33, 64)
"""Rows of a pass that are tried."""

_TEXTS = (1, LONG + 2 * BLOCK + SLACK + 7, 2 * LONG + BLOCK + SLACK)
"""Rows that are settled: none in blocks; long and short ones; both, and as many as a block ends."""

_FREE = 5
"""Slots that hold nothing before the rows of a pass, so that these stand out of order."""


@cache
def least_lines(kv_heads: int, group: int, head_dim: int, threads: int) -> int | None:
    """The least number of lines with which a row has the same bits in all passes that are tried;
    None: with none of those that are tried. `threads`: those that torch has now."""
    if threads != torch.get_num_threads():
        raise LocalError(f"torch has {torch.get_num_threads()} threads, not {threads}")
    return next((least for least in _LEAST if _holds(kv_heads, group, head_dim, least)), None)


@torch.inference_mode()
def _holds(kv_heads: int, group: int, head_dim: int, least: int) -> bool:
    chance = torch.Generator().manual_seed(1)
    most = max(_ROWS)
    q = torch.randn(most, kv_heads * group, head_dim, generator=chance)
    for text in _TEXTS:
        look = _Look(text, kv_heads, group, head_dim, least, chance)
        among = look(q, _FREE)
        if not all(torch.equal(look(q[:rows], 0), among[:rows]) for rows in _ROWS):
            return False
        if not torch.equal(look(q[5:6], 0), among[5:6]):
            return False
    return True


class _Look:
    """Rows of one place in the text look back on what stands there."""

    def __init__(
        self,
        text: int,
        kv_heads: int,
        group: int,
        head_dim: int,
        least: int,
        chance: torch.Generator,
    ) -> None:
        self._text, self._group, self._least = text, group, least
        self._scoring = Scoring(head_dim**-0.5)
        count = -(-text // BLOCK) * BLOCK
        size = (kv_heads, count // BLOCK, 1, BLOCK // 2, head_dim)
        half = torch.randn(size, generator=chance)
        sizes = torch.randint(-8, 8, size[:-1], generator=chance).unsqueeze(-1)
        values = torch.randn(size, generator=chance) * torch.exp2(sizes)
        other = torch.cat((-values[..., : head_dim // 2], values[..., head_dim // 2 :]), -1)
        room = (0, 0, 0, max(_ROWS) + _FREE)
        self._keys = F.pad(torch.cat((half, half), 2).reshape(kv_heads, count, head_dim), room)
        self._values = F.pad(torch.cat((values, other), 2).reshape(kv_heads, count, head_dim), room)
        cut = int(settled(np.array([text]))[0])
        # Where something is summed in float32, what is not would hide it.
        self._values[:, cut or text :] = 0.0
        self._keys[:, text:] = 0.0

    def __call__(self, q: Tensor, free: int) -> Tensor:
        """What the queries [rows, heads, head_dim] see from slots that stand `free` behind the
        text."""
        rows = len(q)
        width = free + rows
        slots = np.arange(self._text + free, self._text + width)
        mask = np.eye(rows, width, free, dtype=np.bool_)
        placement = Placement(
            slots=slots,
            positions=np.full(rows, self._text),
            base=self._text,
            high=self._text + width,
            mask=None if mask.all() else mask,
            slot_positions=np.full(width, self._text),
        )
        (piece,) = pieces(placement, None, rows)
        kv_heads, _, head_dim = self._keys.shape
        scratch = Scratch(piece, self._scoring, kv_heads, self._group, head_dim, self._least)
        return seen(piece, scratch, q, self._keys, self._values)
