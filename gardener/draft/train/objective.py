"""What the head is trained for: the target's own distribution, several steps into the unknown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.draft.train.chunks import Text
from gardener.draft.train.dialogue import ANSWER, TEMPLATE, USER
from gardener.draft.train.head import DraftHead, cross_entropy
from gardener.stages.load import Whole

WEIGHT = {TEMPLATE: 0.0, USER: 0.1, ANSWER: 1.0}
"""How much it matters to guess the token after one of this kind. Drafting is for answers; what a
user writes is there to learn from, too, but nothing is gained where it is guessed."""


@dataclass(frozen=True, eq=False)
class Target:
    """What is taken from the model and not trained.

    table   [vocab, width], the embedding
    matrix  [draft, width], its output rows for the draft vocabulary
    kept    [draft] int64, the tokens of the draft vocabulary, ascending
    place   [vocab] int64, where each token is in `kept`, -1 for those that are not
    taps    columns of the stored features that the head gets, int64
    """

    whole: Whole
    table: Tensor
    matrix: Tensor
    kept: Tensor
    place: Tensor
    taps: Tensor

    @property
    def width(self) -> int:
        return self.table.shape[1]


def borrow(whole: Whole, kept: Tensor, columns: Sequence[bool]) -> Target:
    """`columns`: which of the stored taps the head gets."""
    width, vocab = whole.shape.width, whole.shape.vocab
    place = torch.full((vocab,), -1)
    place[kept] = torch.arange(len(kept))
    dtype = whole.head.dtype
    return Target(
        whole,
        whole.table.to(dtype),
        whole.matrix[kept].to(dtype).contiguous(),
        kept,
        place,
        torch.tensor(columns).repeat_interleave(width).nonzero().squeeze(1),
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """Texts side by side, padded at their ends.

    tokens    [texts, length]
    features  [texts, length, stored taps * width]
    text, at  [n] the places that count: where the token after tokens[text, at] is to be guessed
    weights   [n]
    next      [n] the token that follows there; -1 where the text ends
    """

    tokens: Tensor
    features: Tensor
    text: Tensor
    at: Tensor
    weights: Tensor
    next: Tensor


def collate(texts: Sequence[Text]) -> Batch:
    """A batch of these texts."""
    pad = torch.nn.utils.rnn.pad_sequence
    tokens = pad([t.tokens.long() for t in texts], batch_first=True)
    roles = pad([t.roles for t in texts], batch_first=True, padding_value=TEMPLATE)
    features = pad([t.features for t in texts], batch_first=True)
    # The last token of the template before an answer counts as the answer's first guess.
    leads = torch.zeros_like(roles, dtype=torch.bool)
    leads[:, :-1] = (roles[:, :-1] == TEMPLATE) & (roles[:, 1:] == ANSWER)
    weights = torch.tensor([WEIGHT[r] for r in sorted(WEIGHT)])[roles.long()]
    weights[leads] = WEIGHT[ANSWER]
    weights[:, 0] = 0.0  # there is no feature before the first token
    following = F.pad(tokens[:, 1:], (0, 1), value=-1)
    lengths = torch.tensor([len(t.tokens) for t in texts])
    following[torch.arange(len(texts)), lengths - 1] = -1
    text, at = (weights > 0).nonzero(as_tuple=True)
    return Batch(tokens, features, text, at, weights[text, at], following[text, at])


def batches(texts: Sequence[Text], tokens: int) -> Iterator[Batch]:
    """All texts, in batches of about so many tokens; neighbours in length go together."""
    order = sorted(texts, key=lambda text: len(text.tokens))
    batch: list[Text] = []
    for text in order:
        if batch and (len(batch) + 1) * len(text.tokens) > tokens:
            yield collate(batch)
            batch = []
        batch.append(text)
    if batch:
        yield collate(batch)


def outputs(head: DraftHead, target: Target, batch: Batch, steps: int) -> Iterator[Tensor]:
    """For each pass the outputs [n, width] from which the tokens after `text, at` are guessed.

    Pass k guesses from features that end k + 1 tokens before. Where the text has no such feature,
    the first row stands in; `reach` says where.
    """
    rows = batch.tokens.shape[1] - 1
    ids = F.pad(batch.tokens[:, 1:], (0, steps - 1))
    embedded = F.embedding(ids, target.table)
    positions = torch.arange(rows + steps - 1)
    cos, sin = target.whole.rotary.at(positions, len(positions) - 1)
    features = batch.features[:, :-1]
    if len(target.taps) != features.shape[-1]:
        features = features[:, :, target.taps]
    passes = head.unrolled(embedded, features, cos.squeeze(1), sin.squeeze(1), steps)
    for k, out in enumerate(passes):
        yield out[batch.text, (batch.at - 1 - k).clamp_min(0)]


def reach(batch: Batch, k: int) -> Tensor:
    """[n] bool: is there a row from which pass k guesses what follows here?"""
    return batch.at - 1 - k >= 0


def loss(
    head: DraftHead, target: Target, batch: Batch, steps: int, decay: float
) -> tuple[Tensor, list[float]]:
    """The loss to be minimised, and the mean cross-entropy of each pass.

    Pass k counts decay**k. Tokens that are not in the draft vocabulary cannot be guessed and are
    left out.
    """
    known = (batch.next < 0) | (target.place[batch.next] >= 0)
    with torch.no_grad():
        final = batch.features[batch.text, batch.at, -target.width :]
        wanted = torch.softmax(F.linear(final.to(target.matrix.dtype), target.matrix).float(), -1)
    total = torch.zeros(())
    means = []
    for k, out in enumerate(outputs(head, target, batch, steps)):
        weights = batch.weights * known * reach(batch, k)
        part = cross_entropy(out.to(target.matrix.dtype), target.matrix, wanted, weights)
        part = part / weights.sum().clamp_min(1.0)
        total = total + decay**k * part
        means.append(float(part.detach()))
    return total / sum(decay**k for k in range(steps)), means
