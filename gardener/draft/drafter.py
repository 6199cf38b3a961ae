"""What every drafter can do. The target's text never depends on it, only the speed does."""

from collections.abc import Sequence
from typing import Protocol

from gardener.tree import Guess


class Drafter(Protocol):
    """Guesses what follows. One request at a time; calls come from one thread.

    `expand` is called on the event loop, before a segment leaves: it may take microseconds, not
    more.
    """

    def begin(self, prompt: Sequence[int]) -> None:
        """A new request: these tokens are sure, the last one is the root."""

    def settle(self, tokens: Sequence[int]) -> None:
        """These tokens were accepted since, in order; the last one is the root now."""

    def expand(self, paths: Sequence[Sequence[int]]) -> list[tuple[Guess, ...]]:
        """For each path of tokens below the root (the root itself: empty), what may follow it.

        Likeliest first; probabilities are calibrated and sum to at most 1 per path.
        """
        ...
