"""Whether a row sees the same bits in every filled pass, on this device.

Which kernels a library takes, and how they share out their sums, it decides by shapes. So attention
is tried on its real heads when a stage is built: rows in all sizes of a pass, over all numbers of
chunks, alone and among rows elsewhere in the text, in order and out of it. In 16 bits most of what
is added up cancels out: what is left tells of the order, which rounding would hide.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.linalg import vector_norm as norm

from gardener.model.attention import Attention, Scoring
from gardener.model.device.frame import COLUMNS, CUT, FIRST_OF_TAIL, POSITION, SLOT
from gardener.model.device.look import Choose, FilledRows, kernel_for
from gardener.model.device.sizes import CHUNK, FEW, ROWS, STEP, cut_of

_CHUNKS = (0, 1, 2, 4)
"""Numbers of chunks that are tried."""

_TEXT = _CHUNKS[-1] * CHUNK

_POSITIONS = (STEP + 8, CHUNK - 23, 3 * CHUNK + 2 * STEP - 1)
"""Of rows that are tried: without settled text; with a chunk of it; with more, and a whole tail."""

_LARGE, _SMALL = 2.0**8, 2.0**-8
"""Sizes of what cancels out, and of what is left of it: far enough apart that the error of a sum in
float32 shows in 16 bits, and that of one in float64 does not."""


@torch.inference_mode()
def spread_of_attention(
    kv_heads: int,
    group: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    softcap: float | None = None,
    choose: Choose = kernel_for,
) -> float:
    """By how much a row differs at most from one pass to another, as a part of its size (the norm
    of the difference by that of the row); 0.0: it has the same bits in all that are tried. 1.0 if
    it is no number.

    group  query heads of one kv head
    """
    tried = _Tried(kv_heads, group, head_dim, dtype, device, softcap, choose)
    whole = tried(range(ROWS[-1]), _CHUNKS[-1])
    spreads = [
        (norm(tried(rows, chunks, **how) - whole[rows], dim=1) / norm(whole[rows], dim=1)).amax()
        for rows, chunks, how in _passes()
    ]
    found = float(torch.stack(spreads).amax())
    return found if math.isfinite(found) else 1.0


def _passes() -> Iterator[tuple[Sequence[int], int, dict[str, bool]]]:
    """Rows, chunks and how of each pass."""
    for size in (*FEW, *ROWS):
        yield range(size), _CHUNKS[-1], {"elsewhere": size % 3 == 1}
    for at, position in enumerate(_POSITIONS):
        alike = range(at, ROWS[-1], len(_POSITIONS))
        for chunks in _CHUNKS:
            if chunks * CHUNK >= cut_of(position):
                yield alike[: ROWS[1]], chunks, {"elsewhere": True}
                yield alike[5:6], chunks, {}
                if chunks:
                    yield alike[7:8], chunks, {"elsewhere": True, "deep": True}


class _Tried:
    """Rows of which each stands at one of the positions, in turns, and what they look back on: the
    text in order, and behind it the same once more, in disorder. See `Kept`."""

    def __init__(
        self,
        kv_heads: int,
        group: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        softcap: float | None,
        choose: Choose,
    ) -> None:
        chance = torch.Generator().manual_seed(1)
        self._attention = Attention(Scoring(head_dim**-0.5, softcap))
        self._choose, self._device = choose, device
        self._mixed = torch.randperm(_TEXT, generator=chance)
        size = (kv_heads, _TEXT, head_dim)
        keys, values = (torch.randn(size, generator=chance) for _ in range(2))
        if dtype.itemsize < 4:
            _cancel(keys, values)
        again = self._mixed.argsort()
        self._entries = [
            torch.cat((each, each[:, again]), 1).to(device, dtype) for each in (keys, values)
        ]
        self._q = torch.randn(ROWS[-1], kv_heads * group, head_dim, generator=chance)
        self._q = self._q.to(device, dtype)

    def __call__(
        self, rows: Sequence[int], chunks: int, elsewhere: bool = False, deep: bool = False
    ) -> Tensor:
        """What they see, in float32. elsewhere: their tails are in disorder; deep: all is."""
        ints = torch.zeros(len(rows), COLUMNS, dtype=torch.int64)
        for line, row in zip(ints, rows, strict=True):
            position = _POSITIONS[row % len(_POSITIONS)]
            cut = cut_of(position)
            slots = self._slots(elsewhere)[cut : position + 1]
            line[POSITION], line[SLOT], line[CUT] = position, slots[-1], cut
            line[FIRST_OF_TAIL:] = slots[-1]
            line[FIRST_OF_TAIL : FIRST_OF_TAIL + len(slots)] = slots
        order = self._slots(True)[: int(ints[0, CUT])].to(self._device) if deep else None
        span = FilledRows(ints.to(self._device), self, chunks, order=order, choose=self._choose)
        q = self._q[rows]
        return span.attend(0, self._attention, q, q, q).float()

    def _slots(self, elsewhere: bool) -> Tensor:
        """Where the text stands, [text]."""
        return _TEXT + self._mixed if elsewhere else torch.arange(_TEXT)

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Nothing: all is there."""

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """See `Kept`."""
        keys, values = self._entries
        return keys, values


def _cancel(keys: Tensor, values: Tensor) -> None:
    """See to it that little is left of the first half of what heads see: the second half of each
    STEP rows of the text takes back what the first one gives, but for a few small numbers. Rows
    that would be seen without the ones that take them back give nothing."""
    half, columns = STEP // 2, max(values.shape[-1] // 2, 1)
    by_step = keys.view(len(keys), -1, 2, half, keys.shape[-1])
    by_step[:, :, 1] = by_step[:, :, 0]
    values *= _LARGE
    by_step = values.view(by_step.shape)[..., :columns]
    by_step[:, :, 1] = -by_step[:, :, 0]
    by_step[:, :, 0, -2:] *= _SMALL / _LARGE
    by_step[:, :, 1, -2:] = 0.0
    for position in _POSITIONS:
        if (position + 1) % STEP:
            by_step[:, position // STEP] = 0.0
