"""Tokens per second over several answers, each beside a plain one to the same prompt."""

from collections.abc import Sequence

from gardener.holder.figures import Figures


def rate(plain: Sequence[Figures], answers: Sequence[Figures]) -> float:
    """Of decoding: all tokens but the first ones, by the seconds since the first token of the plain
    answer, as everywhere (`holder/rates.py`). 0.0 if there are none."""
    pairs = list(zip(plain, answers, strict=True))
    tokens = sum(max(each.tokens - 1, 0) for _, each in pairs)
    seconds = sum(each.total - first.first_token for first, each in pairs if each.tokens > 1)
    return tokens / seconds if seconds > 0 else 0.0
