"""Segments with fewer rows, and the verdicts made of them."""

from collections.abc import Sequence

import msgspec

from gardener.errors import StageFailed
from gardener.protocol.features import rows_of
from gardener.protocol.logprobs import TokenLogprobs, packed
from gardener.protocol.messages import Segment, Timing, Verdict
from gardener.protocol.tensors import Tensor
from gardener.stages.forward import NO_PICK


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
    )


def verdict_of(
    segment: Segment,
    pick_rows: Sequence[int],
    picks: Sequence[int],
    living: Sequence[int],
    times: tuple[Timing, ...],
    features: tuple[Tensor, ...],
    logprobs: Sequence[TokenLogprobs] = (),
) -> Verdict:
    """The answer for those of `pick_rows` that live. `logprobs`: of all of these, or (). Raises
    StageFailed if one of them has no pick: a guess, too, since what is not a number in the
    KV cache spreads to all rows of its request."""
    lives = set(living)
    places = [place for place, row in enumerate(pick_rows) if row in lives]
    kept = [(pick_rows[place], picks[place]) for place in places]
    broken = next((row for row, pick in kept if pick == NO_PICK), None)
    if broken is not None:
        raise StageFailed(
            f"the logits after token {segment.positions[broken]} are not numbers: if hidden "
            "states are too large for float16, another --dtype helps"
        )
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
    )


def tensor_bytes(segment: Segment) -> int:
    """Bytes of tensors."""
    hidden = len(segment.hidden.data) if segment.hidden else 0
    return hidden + sum(len(tensor.data) for tensor in segment.features)
