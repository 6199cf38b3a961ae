"""Tokens per second while decoding, in such a way that no policy gets anything for free.

Rows that are under way when the first token comes have been worked for before it, and a policy that
puts them on the way early has its first token later. So decoding begins for all answers to a prompt
at the same time, at the end of one prefill, whatever each of them had done by then.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

REFERENCE = "plain"
"""The policy that only computes the prompt before its first token."""


class Prefill(NamedTuple):
    """The prefill of a prompt in a ring: its seconds, and the policy whose first token ended it."""

    policy: str
    seconds: float


def prefill(first_tokens: Mapping[str, Sequence[float]]) -> Prefill:
    """From the times of first tokens, by policy, one a repetition: the median one under plain; if
    that was not run, the least of the policies' medians."""
    medians = {policy: statistics.median(times) for policy, times in first_tokens.items()}
    policy = REFERENCE if REFERENCE in medians else min(medians, key=lambda name: medians[name])
    return Prefill(policy, medians[policy])


def decoding_rate(tokens: int, total: float, prefill: float) -> float | None:
    """Tokens per second from the end of the prefill to the last token, the first one not counted;
    None if there is no other, or if that time is over before it began."""
    seconds = total - prefill
    return (tokens - 1) / seconds if tokens > 1 and seconds > 0 else None
