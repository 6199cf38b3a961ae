"""Tells a difference at a near tie from a wrong text, where a ring's rows depend on their batch.

Two texts part at a token. If the two tokens that they go on with are as likely as each other, but
for what the ring makes of one row in one batch or another, neither text is wrong.
"""

import math
from collections.abc import Sequence

from gardener.decoding.policy import Bounds, make
from gardener.holder.answer import Wanted, answer
from gardener.holder.holder import Holder
from gardener.holder.prompter import Prompter
from gardener.protocol.cards import near_tie
from gardener.protocol.sampling import MAX_BEST, Sampling


def differs(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The index of the first token that differs, or that only one of them has; None if they are
    equal."""
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return None if len(one) == len(other) else min(len(one), len(other))


async def all_tied(
    holder: Holder,
    prompter: Prompter,
    prompt: Sequence[int],
    texts: Sequence[Sequence[int]],
    sampling: Sampling,
) -> bool:
    """Whether all texts are the first one, or leave it at a near tie."""
    near = near_tie(holder.cards)
    for first, text in ((texts[0], text) for text in texts[1:]):
        at = differs(first, text)
        if at is None:
            continue
        if not near:
            return False
        both = token_at(first, at), token_at(text, at)
        apart = await gap(holder, prompter, prompt, first[:at], both, sampling)
        if apart is None or apart >= near:
            return False
    return True


def token_at(text: Sequence[int], place: int) -> int | None:
    """None where the text has ended."""
    return text[place] if place < len(text) else None


async def gap(
    holder: Holder,
    prompter: Prompter,
    prompt: Sequence[int],
    agreed: Sequence[int],
    tokens: tuple[int | None, int | None],
    sampling: Sampling,
) -> float | None:
    """How far the scores of two tokens lie apart after a prompt and the new tokens that both texts
    have, with the noise of their place: the ring is asked once more.

    None: not known, since one text has ended, or one of the two is not among the best tokens.
    """
    one, other = tokens
    if one is None or other is None:
        return None
    text = [*prompt, *agreed]
    wanted = Wanted(text, 1, logprobs=MAX_BEST, ignore_eos=True)
    got = await answer(holder, prompter, make("plain", Bounds()), wanted)
    if got.error or not got.logprobs:
        return None
    import torch  # late: the commands that may ask this start without it

    from gardener.evaluation.picking import scorer

    best = dict(got.logprobs[0].best)
    logits = torch.full((prompter.vocabulary,), -math.inf)
    logits[list(best)] = torch.tensor(list(best.values()))
    scores = scorer(sampling, len(prompt))(text, logits).noisy
    apart = abs(float(scores[one]) - float(scores[other]))
    return apart if math.isfinite(apart) else None
