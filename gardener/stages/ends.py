"""The two ends of a stage: where its hidden states come from and what becomes of them.

They are parts that a stage holds, not cases it tests for: the first one embeds tokens where others
receive hidden states, the last one picks tokens (`picks`) where others hand them on.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from gardener.errors import LocalError, RemoteError
from gardener.model.device.fetch import Fetch
from gardener.model.embedding import Embedding
from gardener.model.finite import is_finite
from gardener.model.tensors import DTYPES, pack, unpack_into
from gardener.protocol import messages
from gardener.stages.forward import ComputedSegment, PlacedSegment


class Intake(Protocol):
    """What a stage starts from."""

    nbytes: int

    def check(self, segment: messages.Segment) -> None:
        """Raise RemoteError for a segment that this stage cannot compute."""

    def __call__(self, batch: Sequence[PlacedSegment]) -> torch.Tensor:
        """The hidden states [rows, width] of the batch, in this machine's memory."""


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

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        self._width, self._dtype = width, dtype

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
        return rows


class HandOn:
    """The outlet of every stage but the last."""

    nbytes = 0

    def __init__(self, device: torch.device) -> None:
        self._fetch = Fetch(device)

    def __call__(
        self, hidden: torch.Tensor, batch: Sequence[PlacedSegment]
    ) -> list[ComputedSegment]:
        here = self._fetch(hidden)
        parts = torch.split(here, [placed.rows for placed in batch])
        sound = is_finite(here)
        return [
            ComputedSegment(hidden=pack(part), sound=sound or is_finite(part)) for part in parts
        ]
