"""Answers that repeat themselves without end, as a small model's do.

They are easy to guess to any length, so a few of them carry a mean. Whether an answer is one of
them is decided by its tokens alone.
"""

from collections.abc import Sequence

LONGEST = 32
"""Tokens of what is repeated, at most."""

TIMES = 3
"""How often it has to stand at the end, at least."""

PART = 3
"""And all of that has to be one part in so many of the answer, at least."""

RULE = (
    f"answers whose last third or more is one piece of up to {LONGEST} tokens, {TIMES} times or "
    "more on end"
)


def period(tokens: Sequence[int]) -> int | None:
    """Of how many tokens is what this answer repeats up to its end, the fewest that do; None if it
    does not. One that ends by itself does not: its last token stands there once."""
    for size in range(1, min(LONGEST, len(tokens) // TIMES) + 1):
        length = size + _alike(tokens, size)
        if length >= TIMES * size and length * PART >= len(tokens):
            return size
    return None


def _alike(tokens: Sequence[int], size: int) -> int:
    """How many tokens at the end equal the one that stands `size` before them."""
    at = len(tokens)
    while at > size and tokens[at - 1] == tokens[at - 1 - size]:
        at -= 1
    return len(tokens) - at
