"""Answers that repeat themselves without end, as those of small models do.

A drafter guesses them easily to any length, so that a few of them decide a mean. Whether an answer
is one of them follows from its tokens alone.
"""

from collections.abc import Sequence

LONGEST = 32
"""The most tokens of the piece that is repeated."""

TIMES = 3
"""The fewest repetitions at the end of the answer."""

PART = 3
"""All repetitions together are at least this part of the answer: one third."""

RULE = (
    f"answers whose last third or more is one piece of up to {LONGEST} tokens, {TIMES} times or "
    "more on end"
)


def period(tokens: Sequence[int]) -> int | None:
    """The number of tokens of the shortest piece that the answer repeats up to its end; None if it
    does not repeat one. An answer that the model ended does not: its last token stands there
    once."""
    for size in range(1, min(LONGEST, len(tokens) // TIMES) + 1):
        length = size + _alike(tokens, size)
        if length >= TIMES * size and length * PART >= len(tokens):
            return size
    return None


def _alike(tokens: Sequence[int], size: int) -> int:
    """How many tokens at the end equal the token `size` places before them."""
    at = len(tokens)
    while at > size and tokens[at - 1] == tokens[at - 1 - size]:
        at -= 1
    return len(tokens) - at
