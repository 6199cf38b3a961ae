"""Which tokens the head can guess: those that the target itself finds likeliest in the mean."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.draft.train.chunks import Text
from gardener.draft.train.dialogue import ANSWER
from gardener.stages.load import Whole

_AT_ONCE = 512


@torch.no_grad()
def likeliest(whole: Whole, texts: Sequence[Text], count: int) -> Tensor:
    """The `count` tokens with the highest mean probability after the tokens of answers, ascending.

    Means of distributions say much more about rare tokens than counts of what was written do.
    """
    width = whole.shape.width
    states = torch.cat([text.features[text.roles == ANSWER, -width:] for text in texts])
    matrix = whole.matrix.to(states.dtype)
    total = torch.zeros(len(matrix))
    for rows in torch.split(states, _AT_ONCE):
        total += torch.softmax(F.linear(rows, matrix).float(), -1).sum(0)
    return total.topk(min(count, len(matrix))).indices.sort().values


def coverage(texts: Sequence[Text], kept: Tensor) -> float:
    """Share of the tokens of answers that are in the draft vocabulary."""
    written = torch.cat([text.tokens[text.roles == ANSWER] for text in texts])
    return float(torch.isin(written, kept).float().mean())
