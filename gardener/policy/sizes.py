"""How many rows are worth their time: expected tokens against seconds."""

from collections.abc import Callable, Sequence
from itertools import accumulate

CATCH = 0.7
"""Share of true nodes whose next token stands among the guesses: a rough estimate, for judging
whether drafting on is worth it before its outcome is known."""


def best_prefix(
    chances: Sequence[float], seconds: Callable[[int], float], before: float = 0.0
) -> tuple[int, float]:
    """How many of these nodes, the likeliest first, bring the most tokens per second.

    chances: probabilities that they come true, descending. seconds: what so many rows take.
    before: tokens that these seconds have brought whatever the number. Returns the number, and the
    tokens per second; 0 rows bring nothing.
    """
    best, rate = 0, 0.0
    for rows, tokens in enumerate(accumulate(chances), 1):
        found = (before + tokens) / max(seconds(rows), 1e-9)
        if found >= rate * (1 - 1e-12):  # where rows are free, the more the better
            best, rate = rows, max(found, rate)
    return best, rate
