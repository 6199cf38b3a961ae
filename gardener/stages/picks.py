"""The end of the last stage: what it picks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gardener.errors import StageFailed
from gardener.model.finite import is_finite
from gardener.model.head import Head
from gardener.model.sampler import Picking, Picks
from gardener.model.tensors import pack
from gardener.protocol import messages
from gardener.stages.forward import NO_PICK, ComputedSegment, PlacedSegment


def check_picking(message: messages.Open, vocabulary: int) -> None:
    """Raise StageFailed if the picks of a request name tokens that the model does not have."""
    sampling = message.sampling
    named = {
        "logit_bias": max((token for token, _ in sampling.logit_bias), default=-1),
        "eos": max(sampling.eos, default=-1),
    }
    for field, token in named.items():
        if token >= vocabulary:
            raise StageFailed(
                f"{field} names token {token}; this model has the tokens 0 to {vocabulary - 1}"
            )
    if message.logprobs is not None and message.logprobs > vocabulary:
        raise StageFailed(f"logprobs is {message.logprobs}; this model has {vocabulary} tokens")


@dataclass(frozen=True)
class Wanted:
    """What is wanted of the rows of a batch.

    rows    of the batch: those with a pick, or all of a segment whose last hidden states are tapped
    picked  where among these are those with a pick
    tapped  by segment, where among these are its tapped ones; None: they are not
    """

    rows: Sequence[int]
    picked: Sequence[int]
    tapped: Sequence[slice | None]

    @classmethod
    def of(cls, batch: Sequence[PlacedSegment], tap: int) -> "Wanted":
        """`tap`: the number by which the last hidden state is asked for."""
        rows: list[int] = []
        picked: list[int] = []
        tapped: list[slice | None] = []
        first = 0
        for placed in batch:
            at = len(rows)
            if tap in placed.taps:
                rows += range(first, first + placed.rows)
                picked += [at + row for row in placed.pick_rows]
                tapped.append(slice(at, len(rows)))
            else:
                rows += [first + row for row in placed.pick_rows]
                picked += range(at, len(rows))
                tapped.append(None)
            first += placed.rows
        return cls(rows, picked, tapped)

    def told(
        self, normed: torch.Tensor, picks: Sequence[Picks], sound: Sequence[bool]
    ) -> list[ComputedSegment]:
        """What becomes of each segment: `normed` [rows, width] are its rows behind the last norm,
        in this machine's memory or not; `sound` is whether what its rows came to is numbers."""
        return [
            ComputedSegment(
                picks=own.tokens,
                logprobs=own.logprobs,
                features=() if part is None else (pack(normed[part]),),
                sound=read and NO_PICK not in own.tokens,
            )
            for own, part, read in zip(picks, self.tapped, sound, strict=True)
        ]


def taken(there: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """These rows, at least one: without a copy if they are neighbours, in order."""
    first, end = rows[0], rows[0] + len(rows)
    return there[first:end] if list(rows) == list(range(first, end)) else there[rows]


class Pick:
    """The last stage's outlet on the CPU: picks after the rows that ask for one.

    What comes out of the head's norm is the highest tap.
    """

    def __init__(self, head: Head, layers: int) -> None:
        """`layers` of the whole model: the number by which its last hidden state is asked for."""
        self._head, self._tap = head, layers
        self.nbytes = head.nbytes

    def __call__(
        self, hidden: torch.Tensor, batch: Sequence[PlacedSegment]
    ) -> list[ComputedSegment]:
        wanted = Wanted.of(batch, self._tap)
        sound = self._read_soundly(hidden, batch)
        if not wanted.rows:
            return [ComputedSegment(sound=each) for each in sound]
        normed = self._head.normed(taken(hidden, wanted.rows))
        return wanted.told(normed, self._picks(normed, wanted.picked, batch), sound)

    def _read_soundly(self, hidden: torch.Tensor, batch: Sequence[PlacedSegment]) -> list[bool]:
        """By segment, whether its rows are numbers. Picks would not always tell: a quantised head
        may make numbers of what is none."""
        if is_finite(hidden):
            return [True] * len(batch)
        return [is_finite(part) for part in torch.split(hidden, [each.rows for each in batch])]

    def _picks(
        self, normed: torch.Tensor, picked: Sequence[int], batch: Sequence[PlacedSegment]
    ) -> list[Picks]:
        """By segment; `picked`: where their rows are in `normed`."""
        if not picked:
            return [Picks() for _ in batch]
        logits = self._head.project(taken(normed, picked))
        parts = torch.split(logits, [len(placed.pick_rows) for placed in batch])
        likeliest = iter(_likeliest(logits, parts, batch))
        return [
            Picks(tuple(next(likeliest) for _ in placed.pick_rows))
            if placed.picking is None
            else sampled(part, placed.picking)
            for placed, part in zip(batch, parts, strict=True)
        ]


def _likeliest(
    logits: torch.Tensor, parts: Sequence[torch.Tensor], batch: Sequence[PlacedSegment]
) -> list[int]:
    """The likeliest tokens after the rows that want nothing else, in one go. `parts` are those of
    the segments among all of the logits."""
    plain = [part for part, each in zip(parts, batch, strict=True) if each.picking is None]
    if not plain:
        return []
    rows = logits if len(plain) == len(parts) else torch.cat(plain)
    # On a processor, the maximum of 16-bit numbers takes five times as long.
    # NumPy finds it in a tenth of the time that torch takes.
    numbers = rows.float().numpy()
    tokens = numbers.argmax(-1)
    sound = np.isfinite(numbers[np.arange(len(numbers)), tokens])
    found: list[int] = np.where(sound, tokens, NO_PICK).tolist()
    return found


def sampled(logits: torch.Tensor, picking: Picking) -> Picks:
    """The picks after rows that want more than that."""
    picks = picking.sampler.pick(logits, picking)
    chosen = torch.tensor(picks.tokens, dtype=torch.long, device=logits.device)
    tokens = with_numbers(logits, chosen)
    # A token that could not be picked here may have had no number: then the sum has none.
    for row, told in enumerate(picks.logprobs):
        if not math.isfinite(told.pick):
            tokens[row] = NO_PICK
    return picks._replace(tokens=tuple(tokens))


def with_numbers(logits: torch.Tensor, tokens: torch.Tensor) -> list[int]:
    """The picked tokens [rows] after rows with these logits [rows, vocabulary], and NO_PICK after
    those whose logits are no numbers. The pick alone says so: what is not a number counts as the
    highest, and so does infinity. One transfer brings both here."""
    numbers = logits.gather(-1, tokens[:, None])[:, 0].isfinite()
    found: list[int] = tokens.where(numbers, NO_PICK).tolist()
    return found
