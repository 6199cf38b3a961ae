"""Segments with fewer rows, and the verdicts made of them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from gardener.protocol.features import rows_of
from gardener.protocol.logprobs import TokenLogprobs, packed
from gardener.protocol.messages import Broken, Segment, Timing, Verdict
from gardener.protocol.tensors import Tensor

NOTHING: Mapping[int, int] = MappingProxyType({})
"""No row is broken."""


def keep_rows(segment: Segment, rows: Sequence[int]) -> Segment:
    """The segment with only these rows, given by index in ascending order."""
    if len(rows) == len(segment.ids):
        return segment
    return msgspec.structs.replace(
        segment,
        ids=tuple(segment.ids[row] for row in rows),
        parents=tuple(segment.parents[row] for row in rows),
        positions=tuple(segment.positions[row] for row in rows),
        tokens=tuple(segment.tokens[row] for row in rows),
        hidden=segment.hidden.take(rows) if segment.hidden and rows else None,
        features=rows_of(segment.features, rows) if rows else (),
        broken=_of_rows(segment, rows),
    )


def _of_rows(segment: Segment, rows: Sequence[int]) -> tuple[Broken, ...]:
    """What is broken among these."""
    if not segment.broken:
        return ()
    left = {segment.ids[row] for row in rows}
    return tuple(each for each in segment.broken if each.row in left)


def with_broken(segment: Segment, broken: Mapping[int, int]) -> Segment:
    """The segment with these rows marked, given by index, each with its layer."""
    if not broken:
        return segment
    marks = tuple(Broken(segment.ids[row], layer) for row, layer in sorted(broken.items()))
    return msgspec.structs.replace(segment, broken=marks)


def verdict_of(
    segment: Segment,
    pick_rows: Sequence[int],
    picks: Sequence[int],
    living: Sequence[int],
    times: tuple[Timing, ...],
    features: tuple[Tensor, ...],
    logprobs: Sequence[TokenLogprobs] = (),
    broken: Mapping[int, int] = NOTHING,
) -> Verdict:
    """The answer for those of `pick_rows` that live and are not `broken` (rows by index, each with
    its layer). `logprobs`: of all of `pick_rows`, or ()."""
    lives = {row for row in living if row not in broken}
    places = [place for place, row in enumerate(pick_rows) if row in lives]
    kept = [(pick_rows[place], picks[place]) for place in places]
    if features:
        # What stands before the first of these rows is prompt, which never dies.
        lead = pick_rows[0] if pick_rows else len(segment.ids)
        rows = [*range(lead), *(row for row, _ in kept)]
        features = rows_of(features, rows)
    told = [logprobs[place] for place in places] if logprobs else []
    values, likeliest = packed(told) if told else (None, b"")
    return Verdict(
        segment.request,
        segment.seq,
        tuple(segment.ids[row] for row, _ in kept),
        tuple(pick for _, pick in kept),
        times,
        features,
        values,
        likeliest,
        broken=tuple(Broken(segment.ids[row], broken[row]) for row in living if row in broken),
    )


def tensor_bytes(segment: Segment) -> int:
    """Bytes of tensors."""
    hidden = len(segment.hidden.data) if segment.hidden else 0
    return hidden + sum(len(tensor.data) for tensor in segment.features)
