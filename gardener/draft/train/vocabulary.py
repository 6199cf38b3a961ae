"""Which tokens the head can guess: those that the target itself finds likeliest in the mean."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gardener.draft.train.chunks import Text
from gardener.draft.train.dialogue import ANSWER


def likeliest(vocab: int, texts: Sequence[Text], count: int) -> Tensor:
    """The `count` tokens of `vocab` with the highest mean probability after the tokens of answers,
    ascending.

    Means of distributions say much more about rare tokens than counts of what was written do.
    """
    answers = [text.roles == ANSWER for text in texts]
    likely = torch.cat([text.likely[at].flatten() for text, at in zip(texts, answers, strict=True)])
    odds = torch.cat([text.odds[at].flatten() for text, at in zip(texts, answers, strict=True)])
    total = torch.zeros(vocab).index_add_(0, likely.long(), odds.float())
    return total.topk(min(count, vocab)).indices.sort().values


def coverage(texts: Sequence[Text], kept: Tensor) -> float:
    """Share of the tokens of answers that are in the draft vocabulary."""
    written = torch.cat([text.tokens[text.roles == ANSWER] for text in texts])
    return float(torch.isin(written, kept).float().mean())
