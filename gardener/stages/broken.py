"""Rows of which a stage computed no numbers, for instance since they are too large for float16.

In the KV cache they would spoil every other row of their request: a slot that is masked has a
weight of 0, and 0 times a NaN is a NaN. But a guess that cannot be computed may not end a request
that plain decoding finishes. So what such a row left in the cache is wiped out, the rows that were
computed beside it are computed again, one by one, and it goes on as a mark: which layer was the
first, `messages.Broken`. It is never picked after, and neither is what follows it. The holder ends
the request if such a row turns out to be part of the text.

All this takes time only where something broke: what is looked at in every pass is the least and the
greatest number that leave a stage, and the picks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gardener.model.placement import Placement
from gardener.model.sampler import Picking
from gardener.protocol.tensors import Tensor
from gardener.stages.forward import ComputedSegment, PlacedSegment


def unseen(batch: Sequence[PlacedSegment]) -> NDArray[np.bool_]:
    """Which slots no row of a request sees: what stands there is dead, or to be seen by others
    later on. [high]"""
    found = np.ones(max(placed.placement.high for placed in batch), np.bool_)
    for placed in batch:
        found[: placed.placement.high] &= ~placed.placement.sees.any(0)
    return found


def behind(placement: Placement, broken: Mapping[int, int]) -> dict[int, int]:
    """Which rows see one of the broken slots, their own included, and that one's layer."""
    found: dict[int, int] = {}
    mask = placement.sees
    for slot, layer in broken.items():
        if slot < placement.high:
            found.update(dict.fromkeys(np.flatnonzero(mask[:, slot]).tolist(), layer))
    return found


def pieces(placed: PlacedSegment) -> Iterator[PlacedSegment]:
    """A segment in pieces that are computed one after the other: the rows of the prompt that are
    not judged, which share their fate, and then row by row."""
    judged = list(placed.pick_rows)
    lead = [row for row in range(placed.rows) if row not in set(judged)]
    for rows in ([lead] if lead else []) + [[row] for row in judged]:
        yield _rows_of(placed, rows)


def _rows_of(placed: PlacedSegment, rows: list[int]) -> PlacedSegment:
    picks = [place for place, row in enumerate(placed.pick_rows) if row in rows]
    return replace(
        placed,
        placement=placed.placement.take(rows),
        tokens=[placed.tokens[row] for row in rows] if placed.tokens else (),
        hidden=None if placed.hidden is None else placed.hidden.take(rows),
        pick_rows=[rows.index(placed.pick_rows[place]) for place in picks],
        picking=None if placed.picking is None else _picks_of(placed.picking, picks),
        broken={rows.index(row): layer for row, layer in placed.broken.items() if row in rows},
    )


def _picks_of(picking: Picking, picks: list[int]) -> Picking:
    return replace(
        picking,
        positions=[picking.positions[place] for place in picks],
        paths=[picking.paths[place] for place in picks] if picking.paths else (),
    )


def joined(parts: Sequence[ComputedSegment], rows: Sequence[int]) -> ComputedSegment:
    """What came of the pieces of a segment as if it had been computed at once; `rows` of each.
    Those of the prompt come first, in a segment as in its pieces."""
    hidden = [part.hidden for part in parts if part.hidden is not None]
    firsts = np.cumsum([0, *rows]).tolist()
    return ComputedSegment(
        hidden=_stacked(hidden) if hidden else None,
        picks=tuple(chain.from_iterable(part.picks for part in parts)),
        logprobs=tuple(chain.from_iterable(part.logprobs for part in parts)),
        features=tuple(map(_stacked, zip(*(part.features for part in parts), strict=True))),
        broken={
            first + row: layer
            for first, part in zip(firsts[:-1], parts, strict=True)
            for row, layer in part.broken.items()
        },
    )


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    rows = sum(tensor.shape[0] for tensor in tensors)
    data = b"".join(tensor.data for tensor in tensors)
    return Tensor(tensors[0].dtype, (rows, *tensors[0].shape[1:]), data)
