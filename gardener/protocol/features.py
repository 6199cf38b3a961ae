"""Features that a verdict brings for a drafter: hidden states at the taps it asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from gardener.errors import RemoteError
from gardener.protocol.messages import Card, Verdict
from gardener.protocol.tensors import Tensor


def rows_of(features: Sequence[Tensor], rows: Sequence[int]) -> tuple[Tensor, ...]:
    """These rows of every tap."""
    return tuple(tensor.take(rows) for tensor in features)


@dataclass(frozen=True, slots=True)
class Features:
    """The features of one verdict: for each tap a tensor [lead + len(ids), width]. The first `lead`
    rows are of the prompt, which is not judged."""

    lead: int = 0
    ids: tuple[int, ...] = ()
    tensors: tuple[Tensor, ...] = ()

    @property
    def prompt(self) -> tuple[Tensor, ...]:
        """The features of the prompt's rows, if there are any."""
        return rows_of(self.tensors, range(self.lead)) if self.lead else ()

    def of(self, nodes: Sequence[int]) -> tuple[Tensor, ...]:
        """The features of nodes that this verdict judged: for each tap a tensor [len(nodes),
        width]."""
        if not self.tensors:
            return ()
        return rows_of(self.tensors, [self.lead + self.ids.index(node) for node in nodes])


NO_FEATURES = Features()
"""The features of a verdict that brought none."""


def received(verdict: Verdict, lead: int, taps: Sequence[int], card: Card) -> Features:
    """What a verdict for a segment with `lead` rows of prompt brought, for a model of this card.

    Raises RemoteError if it is not what was asked for.
    """
    rows = lead + len(verdict.ids)  # prompt rows never die
    given = [(tensor.shape, tensor.dtype) for tensor in verdict.features]
    none_due = not rows and not given  # a segment that lost its rows early has no tensors
    if not none_due and given != [((rows, card.width), card.dtype)] * len(taps):
        raise RemoteError(
            f"segment {verdict.seq} came back with features {given}, asked for were taps "
            f"{tuple(taps)} of {rows} rows"
        )
    return Features(lead, verdict.ids, verdict.features)
