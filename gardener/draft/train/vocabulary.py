"""Which tokens the head can guess: those that the target itself finds likeliest in the mean."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gardener.draft.train.chunks import Text
from gardener.draft.train.dialogue import ANSWER


def likeliest(among: Tensor, texts: Sequence[Text], count: int) -> Tensor:
    """The `count` tokens among these with the highest mean probability after the tokens of answers,
    ascending.

    Means of distributions say much more about rare tokens than counts of what was written do.
    """
    answers = [text.roles == ANSWER for text in texts]
    likely = torch.cat([text.likely[at].flatten() for text, at in zip(texts, answers, strict=True)])
    odds = torch.cat([text.odds[at].flatten() for text, at in zip(texts, answers, strict=True)])
    size = int(torch.cat([among, likely]).max()) + 1
    total = torch.zeros(size).index_add_(0, likely.long(), odds.float())[among]
    return among[total.topk(min(count, len(among))).indices].sort().values


def coverage(texts: Sequence[Text], kept: Tensor) -> float:
    """Share of the tokens of answers that are in the draft vocabulary."""
    written = torch.cat([text.tokens[text.roles == ANSWER] for text in texts])
    return float(torch.isin(written, kept).float().mean())
