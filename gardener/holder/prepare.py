"""What is done for prompts before any time is measured: a simulated ring needs what the model
writes."""

from collections.abc import Sequence
from typing import Protocol

from gardener.protocol.sampling import GREEDY, Sampling


class Prepare(Protocol):
    """Told prompts that will be asked, for how many tokens each, and how these are picked."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, sampling: Sampling = GREEDY
    ) -> None:
        """Takes a while. Raises UserError."""


def nothing(prompts: Sequence[Sequence[int]], new_tokens: int, sampling: Sampling = GREEDY) -> None:
    """A real ring needs no preparation."""
