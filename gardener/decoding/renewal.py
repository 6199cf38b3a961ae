"""How a request goes on in a ring that broke and stands again."""

from collections.abc import Sequence
from dataclasses import replace

from gardener.decoding.policy import Policy
from gardener.decoding.speculation import Speculation


def renewed(
    speculation: Speculation, request: int, answer: Sequence[int], policy: Policy
) -> Speculation:
    """The same request under another number, for stages that know nothing of it: its prompt is the
    old one with the `answer` so far, and the limits and counts are those of the whole answer.
    `policy`: one that has seen nothing yet. Guesses that were under way are lost.

    The tokens that follow are the same: what is picked depends on the tokens before it, and the
    noise on seed and place (`model/noise.py`), not on the number or on what was sent before.
    """
    speculation.counts.wasted += sum(flight.tree_rows for flight in speculation.flights)
    prompt = (*speculation.prompt[: speculation.asked], *answer)
    return replace(
        speculation,
        request=request,
        prompt=prompt,
        policy=policy,
        prefix=None,
        written=len(answer),
    )
