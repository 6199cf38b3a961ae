"""How many rows are worth their time: expected tokens against seconds."""

from collections.abc import Callable, Sequence

CATCH = 0.7
"""Share of true nodes whose next token stands among the guesses: a rough estimate, for judging
whether drafting on is worth it before its outcome is known."""


def best_prefix(
    chances: Sequence[float], seconds: Callable[[int], float], before: float = 0.0
) -> tuple[int, float]:
    """How many of these nodes, the likeliest first, bring the most tokens per second.

    chances: probabilities that they come true, descending. seconds: what a number of rows takes.
    before: tokens that these seconds have brought whatever the number. Returns the number, and the
    tokens per second; 0 rows bring nothing.
    """
    best, rate, tokens = 0, 0.0, before
    for rows, chance in enumerate(chances, 1):
        tokens += chance
        found = tokens / (seconds(rows) or 1e-9)
        if found >= rate * (1 - 1e-12):  # where rows are free, the more the better
            best = rows
            if found > rate:
                rate = found
    return best, rate
