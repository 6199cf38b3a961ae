"""The end of the last stage on a device: recorded work, and one copy of what it picks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gardener.model.device.fetch import Fetch
from gardener.model.device.graphs import Graphs
from gardener.model.device.sizes import ROWS, filled
from gardener.model.head import Head
from gardener.model.sampler import Picks
from gardener.stages.forward import NO_PICK, ComputedSegment, PlacedSegment
from gardener.stages.picks import Wanted, sampled, taken


class _Scored(NamedTuple):
    """logits [rows, vocabulary], and the likeliest tokens [rows] int64, or NO_PICK."""

    logits: Tensor
    likeliest: Tensor


class DevicePick:
    """The outlet of the last stage. See `picks.Pick`.

    Picks that are drawn are drawn on the CPU, of logits that are copied there.
    """

    def __init__(self, head: Head, layers: int, graphs: Graphs) -> None:
        """`layers` of the whole model: the number by which its last hidden state is asked for."""
        self._head, self._tap, self._graphs = head, layers, graphs
        self._fetch, self._fetch_logits = Fetch(head.device), Fetch(head.device)
        self._inputs: dict[int, Tensor] = {}  # what the head reads, by size
        self.nbytes = head.nbytes

    def __call__(self, hidden: Tensor, batch: Sequence[PlacedSegment]) -> list[ComputedSegment]:
        wanted = Wanted.of(batch, self._tap)
        finite, scored, tokens = hidden.isfinite().all(-1), None, []
        normed = hidden
        if any(part is not None for part in wanted.tapped):
            normed = self._fetch(self._normed(taken(hidden, wanted.rows))).clone()
        if wanted.picked:
            rows = [wanted.rows[place] for place in wanted.picked]
            scored = self._scored(taken(hidden, rows))
            together = self._fetch(torch.cat((finite.long(), scored.likeliest)))
            finite, tokens = together[: len(hidden)] != 0, together[len(hidden) :].tolist()
        else:
            finite = self._fetch(finite)
        picks = self._picks(scored, tokens, batch)
        return wanted.told(normed, picks, _by_segment(finite, batch))

    def _normed(self, rows: Tensor) -> Tensor:
        """What the last norm gives, [rows, width]: of passes as large as those of the layers, for a
        norm may have an order of sums for few rows, too."""
        parts = []
        for part in torch.split(rows, ROWS[-1]):
            full = part.new_zeros(filled(len(part), ROWS), part.shape[1])
            full[: len(part)] = part
            parts.append(self._head.normed(full)[: len(part)])
        return torch.cat(parts)

    def _picks(
        self, scored: _Scored | None, likeliest: Sequence[int], batch: Sequence[PlacedSegment]
    ) -> list[Picks]:
        """By segment."""
        if scored is None:
            return [Picks() for _ in batch]
        drawn = any(placed.picking is not None and placed.pick_rows for placed in batch)
        logits = self._fetch_logits(scored.logits) if drawn else scored.logits
        picks, first = [], 0
        for placed in batch:
            rows = slice(first, first + len(placed.pick_rows))
            first = rows.stop
            picks.append(
                Picks(tuple(likeliest[rows]))
                if placed.picking is None
                else sampled(logits[rows], placed.picking)
            )
        return picks

    def _scored(self, hidden: Tensor) -> _Scored:
        """Of rows [n, width] that leave the last layer."""
        most = ROWS[-1]
        if len(hidden) <= most:
            return self._scored_at_once(hidden)
        parts = []
        for part in torch.split(hidden, most):
            scored = self._scored_at_once(part)  # stands where the next one will
            parts.append(_Scored(*(each.clone() for each in scored)))
        return _Scored(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def _scored_at_once(self, hidden: Tensor) -> _Scored:
        count = len(hidden)
        size = filled(count, ROWS)
        rows = self._inputs.get(size)
        if rows is None:
            rows = self._inputs[size] = hidden.new_zeros(size, hidden.shape[1])
        rows[:count] = hidden
        scored = self._graphs.run(("head", size), lambda: self._likeliest(rows))
        return _Scored(*(each[:count] for each in scored))

    def _likeliest(self, hidden: Tensor) -> _Scored:
        logits = self._head.logits(hidden)
        best, tokens = logits.float().max(-1)
        return _Scored(logits, tokens.where(best.isfinite(), NO_PICK))


def _by_segment(sound: Tensor, batch: Sequence[PlacedSegment]) -> list[bool]:
    """From whether each row [rows] is numbers, in this machine's memory."""
    return [bool(part.all()) for part in torch.split(sound, [each.rows for each in batch])]
