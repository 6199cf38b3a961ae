"""What every drafter can do. The target's text never depends on it, only the speed does.

A drafter is loaded once and serves any number of texts; a draft is its state for one of them.
"""

from collections.abc import Sequence
from typing import Protocol

from gardener.decoding.tree import Node, Opinion
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.protocol.tensors import Tensor


class Draft(Protocol):
    """One text, and the guesses at how it goes on. Whoever drops it frees what it holds."""

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        """`nodes` were accepted since the last call, in order; the last one is the root now. There
        are none while the prompt is computed.

        features: one tensor [rows, width] per tap, for the next rows of the text, from its first
        token on. Once there are nodes, they reach up to the token before the root.
        """

    def expand(self, paths: Sequence[Sequence[Node]]) -> Sequence[Opinion]:
        """For each path of nodes, from the root down, what may follow its last one.

        Likeliest first; probabilities are calibrated and sum to at most 1 per path. None: features
        that it needs are still under way, so it wants to be asked again when more is settled. It
        may be asked at any moment.
        """
        ...


class Drafter(Protocol):
    """Opens a draft for each text. It and all its drafts are called from one thread, one by one."""

    @property
    def name(self) -> str:
        """For people: what kind it is."""

    @property
    def numbers(self) -> str:
        """For people: the type of number that it computes with; empty: none."""

    @property
    def instant(self) -> bool:
        """An instant drafter takes microseconds: it is called on the event loop before a segment
        leaves. Any other is called on a thread of its own, and the ring does not wait for it."""

    @property
    def taps(self) -> tuple[int, ...]:
        """Features that it wants from the ring (see `messages.Open`); empty: none."""

    @property
    def context(self) -> int | None:
        """Tokens of the longest text that it was made for; None: any length is the same to it."""

    def open(
        self,
        prompt: Sequence[int],
        sampling: Sampling = GREEDY,
        *,
        source: tuple[Draft | None, int] | None = None,
    ) -> Draft:
        """A draft of a new text: these tokens are certain, the last one is the root. Their nodes
        have the ids 0..len(prompt)-1. Drafts that are open already stay as they are.

        sampling: how the target picks, for those who can make something of it.

        source: an open draft of this drafter (None: it could not be had), and how many tokens both
        texts begin with. What was computed of them may be taken from there. The ring computes
        nothing of them but the last one, so that is the token with which features begin.
        """
        ...
