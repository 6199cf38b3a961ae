"""When an answer ends, and what it cost."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields

MAX_REQUESTS = 8
"""Requests that run in a ring at the same time, where nobody says otherwise."""

MOST_REQUESTS = 128
"""And at most: stages take more, but keep the rows of some that have ended, too."""

PATIENCE_LOST = 120.0
"""Seconds for which requests wait for a ring that broke, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When an answer ends.

    new_tokens  most tokens to emit
    context     most tokens of prompt and answer together
    eos         tokens that end the answer and belong to it
    ends        asked once for each emitted token that is no `eos`, in order: true where the text
                holds a stop string with it
    """

    new_tokens: int
    context: int
    eos: frozenset[int] = frozenset()
    ends: Callable[[int], bool] = lambda token: False

    def room(self, prompt: int) -> tuple[int, str]:
        """Most tokens that may follow a prompt of this length, and the limit that says so:
        `length` or `context`. Raises ValueError if there is no room for any."""
        left = self.context - prompt
        if not prompt or left < 1 or self.new_tokens < 1:
            raise ValueError(
                f"a prompt of {prompt} tokens in a context of {self.context} "
                f"leaves no room for an answer of up to {self.new_tokens}"
            )
        return (self.new_tokens, "length") if self.new_tokens <= left else (left, "context")


@dataclass(slots=True)
class Counts:
    """What a request cost and brought. Rows of the prompt before its last token are not counted."""

    emitted: int = 0
    segments: int = 0  # with tree rows
    rows: int = 0  # tree rows sent
    wasted: int = 0  # tree rows sent that did not come true, or came after the end
    accepted: int = 0  # emitted tokens whose node stood in the tree already
    missed: int = 0  # emitted tokens that had to be planted
    drafted: int = 0  # nodes that the drafters added
    named: dict[int, int] = field(default_factory=dict)  # accepted, by drafters that named them
    prefill: int = 0  # segments of prompt rows alone
    plain: int = 0  # emitted tokens before which guessing had been turned off: it did not pay

    def add(self, other: "Counts") -> None:
        """Count what another request cost and brought, too."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for drafter, accepted in tuple(other.named.items()):
            self.named[drafter] = self.named.get(drafter, 0) + accepted


_NUMBERS = tuple(each.name for each in fields(Counts) if each.name != "named")
