"""The two ends of a stage: where its hidden states come from and what becomes of them.

They are parts that a stage holds, not cases it tests for: the first one embeds tokens where others
receive hidden states, the last one picks tokens where others hand them on.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from gardener.errors import LocalError, RemoteError, StageFailed
from gardener.model.embedding import Embedding
from gardener.model.finite import is_finite
from gardener.model.head import Head
from gardener.model.sampler import Picking, Picks
from gardener.model.tensors import DTYPES, pack, unpack_into
from gardener.protocol import messages
from gardener.stages.forward import NO_PICK, ComputedSegment, PlacedSegment


class Intake(Protocol):
    """What a stage starts from."""

    nbytes: int

    def check(self, segment: messages.Segment) -> None:
        """Raise RemoteError for a segment that this stage cannot compute."""

    def __call__(self, batch: Sequence[PlacedSegment]) -> torch.Tensor:
        """The hidden states [rows, width] of the batch, on the stage's device."""


class Outlet(Protocol):
    """What a stage ends with."""

    nbytes: int

    def __call__(
        self, hidden: torch.Tensor, batch: Sequence[PlacedSegment]
    ) -> list[ComputedSegment]:
        """One result per segment from their hidden states [rows, width]."""


class Embed:
    """The first stage's intake."""

    def __init__(self, embedding: Embedding) -> None:
        self._embedding = embedding
        self.nbytes = embedding.nbytes

    def check(self, segment: messages.Segment) -> None:
        if segment.hidden is not None:
            raise RemoteError("the first stage got hidden states instead of tokens")

    def __call__(self, batch: Sequence[PlacedSegment]) -> torch.Tensor:
        return self._embedding([token for placed in batch for token in placed.tokens])


class Receive:
    """The intake of every other stage."""

    nbytes = 0

    def __init__(self, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self._width, self._dtype, self._device = width, dtype, device

    def check(self, segment: messages.Segment) -> None:
        if segment.hidden is None:
            if segment.ids:
                raise RemoteError("a stage that is not the first got tokens alone")
        elif segment.hidden.shape[1] != self._width:
            raise RemoteError(
                f"hidden states are {segment.hidden.shape[1]} wide, the model is {self._width}"
            )
        elif DTYPES[segment.hidden.dtype] != self._dtype:
            raise RemoteError(f"hidden states came as {segment.hidden.dtype}")

    def __call__(self, batch: Sequence[PlacedSegment]) -> torch.Tensor:
        rows = torch.empty(sum(placed.rows for placed in batch), self._width, dtype=self._dtype)
        first = 0
        for placed in batch:
            if placed.hidden is None:
                raise LocalError("a segment without hidden states reached a stage that needs them")
            unpack_into(rows[first : first + placed.rows], placed.hidden)
            first += placed.rows
        return rows.to(self._device)


class HandOn:
    """The outlet of every stage but the last."""

    nbytes = 0

    def __call__(
        self, hidden: torch.Tensor, batch: Sequence[PlacedSegment]
    ) -> list[ComputedSegment]:
        here = hidden.cpu()
        parts = torch.split(here, [placed.rows for placed in batch])
        sound = is_finite(here)
        return [
            ComputedSegment(hidden=pack(part), sound=sound or is_finite(part)) for part in parts
        ]


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


class Pick:
    """The last stage's outlet: picks after the rows that ask for one.

    What comes out of the head's norm is the highest tap.
    """

    def __init__(self, head: Head, layers: int) -> None:
        """`layers` of the whole model: the number by which its last hidden state is asked for."""
        self._head, self._tap = head, layers
        self.nbytes = head.nbytes

    def __call__(
        self, hidden: torch.Tensor, batch: Sequence[PlacedSegment]
    ) -> list[ComputedSegment]:
        rows: list[int] = []  # of the batch: those with a pick, or all of a tapped segment
        picked: list[int] = []  # where among these
        tapped: list[slice | None] = []  # by segment
        first = 0
        for placed in batch:
            at = len(rows)
            if self._tap in placed.taps:
                rows += range(first, first + placed.rows)
                picked += [at + row for row in placed.pick_rows]
                tapped.append(slice(at, len(rows)))
            else:
                rows += [first + row for row in placed.pick_rows]
                picked += range(at, len(rows))
                tapped.append(None)
            first += placed.rows
        sound = self._read_soundly(hidden, batch)
        if not rows:
            return [ComputedSegment(sound=each) for each in sound]
        normed = self._head.normed(hidden if len(rows) == len(hidden) else hidden[rows])
        return [
            ComputedSegment(
                picks=picks.tokens,
                logprobs=picks.logprobs,
                features=() if part is None else (pack(normed[part]),),
                sound=read and NO_PICK not in picks.tokens,
            )
            for picks, part, read in zip(
                self._picks(normed, picked, batch), tapped, sound, strict=True
            )
        ]

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
        rows = normed if len(picked) == len(normed) else normed[picked]
        logits = self._head.project(rows)
        parts = torch.split(logits, [len(placed.pick_rows) for placed in batch])
        likeliest = iter(_likeliest(logits, parts, batch))
        return [
            Picks(tuple(next(likeliest) for _ in placed.pick_rows))
            if placed.picking is None
            else _sampled(part, placed.picking)
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
    rows = rows.float()
    if rows.device.type != "cpu":
        return _with_numbers(rows, rows.argmax(-1))
    # The same by NumPy, which finds it in a tenth of the time that torch takes.
    numbers = rows.numpy()
    tokens = numbers.argmax(-1)
    sound = np.isfinite(numbers[np.arange(len(numbers)), tokens])
    found: list[int] = np.where(sound, tokens, NO_PICK).tolist()
    return found


def _sampled(logits: torch.Tensor, picking: Picking) -> Picks:
    """The picks after rows that want more than that."""
    picks = picking.sampler.pick(logits, picking)
    chosen = torch.tensor(picks.tokens, dtype=torch.long, device=logits.device)
    tokens = _with_numbers(logits, chosen)
    # A token that could not be picked here may have had no number: then the sum has none.
    for row, told in enumerate(picks.logprobs):
        if not math.isfinite(told.pick):
            tokens[row] = NO_PICK
    return picks._replace(tokens=tuple(tokens))


def _with_numbers(logits: torch.Tensor, tokens: torch.Tensor) -> list[int]:
    """The picked tokens [rows] after rows with these logits [rows, vocabulary], and NO_PICK after
    those whose logits are no numbers. The pick alone says so: what is not a number counts as the
    highest, and so does infinity. One transfer brings both here."""
    numbers = logits.gather(-1, tokens[:, None])[:, 0].isfinite()
    found: list[int] = tokens.where(numbers, NO_PICK).tolist()
    return found
