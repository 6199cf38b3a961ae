"""What the head is trained for: the target's own distribution, several steps into the unknown."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.draft.train.chunks import Text
from gardener.draft.train.dialogue import ANSWER, TEMPLATE, USER
from gardener.draft.train.head import DraftHead, cross_entropy
from gardener.model.batch_decoder import Kept
from gardener.model.loader import Whole
from gardener.model.rotary import Rotary

WEIGHT = {TEMPLATE: 0.0, USER: 0.5, ANSWER: 1.0}
"""How much it matters to guess the token after one of this kind: drafting is for answers."""

EXTRA = 512
"""Outputs chosen at random and added to those that a batch finds likely, so that tokens which are
hardly ever likely are learned not to be guessed."""


@dataclass(frozen=True, eq=False)
class Target:
    """What is taken from the model and not trained.

    table   [vocab, width], the embedding
    matrix  [draft, width], its output rows for the draft vocabulary
    kept    [draft] int64, the tokens of the draft vocabulary, ascending
    place   [vocab] int64, where each token is in `kept`, -1 for those that are not
    """

    rotary: Rotary
    table: Tensor
    matrix: Tensor
    kept: Tensor
    place: Tensor


def borrow(whole: Whole, kept: Tensor) -> Target:
    """`kept`: the tokens of the draft vocabulary, ascending."""
    place = torch.full((whole.architecture.vocab,), -1)
    place[kept] = torch.arange(len(kept))
    dtype = whole.head.dtype
    matrix = whole.matrix[kept].to(dtype).contiguous()
    return Target(whole.rotary, whole.table.to(dtype), matrix, kept, place)


@dataclass(frozen=True, eq=False)
class TextBatch:
    """Texts side by side, padded at their ends.

    tokens    [texts, length]
    features  [texts, length, taps * width]
    text, at  [n] the places that count: where the token after tokens[text, at] is to be guessed
    weights   [n]
    next      [n] the token that follows there; -1 where the text ends
    likely    [n, LIKELY] the tokens that the target finds likeliest there
    odds      [n, LIKELY] their probabilities
    """

    tokens: Tensor
    features: Tensor
    text: Tensor
    at: Tensor
    weights: Tensor
    next: Tensor
    likely: Tensor
    odds: Tensor


def collate(texts: Sequence[Text]) -> TextBatch:
    """A batch of these texts."""
    pad = torch.nn.utils.rnn.pad_sequence
    tokens = pad([t.tokens.long() for t in texts], batch_first=True)
    roles = pad([t.roles for t in texts], batch_first=True, padding_value=TEMPLATE)
    features, likely, odds = (
        pad([getattr(t, name) for t in texts], batch_first=True) for name in Kept._fields
    )
    # The last token of the template before an answer counts as the answer's first guess.
    leads = torch.zeros_like(roles, dtype=torch.bool)
    leads[:, :-1] = (roles[:, :-1] == TEMPLATE) & (roles[:, 1:] == ANSWER)
    weights = torch.tensor([WEIGHT[r] for r in sorted(WEIGHT)])[roles.long()]
    weights[leads] = WEIGHT[ANSWER]
    weights[:, 0] = 0.0  # there is no feature before the first token
    following = F.pad(tokens[:, 1:], (0, 1), value=-1)
    lengths = torch.tensor([len(t.tokens) for t in texts])
    following[torch.arange(len(texts)), lengths - 1] = -1
    at = (weights > 0).nonzero(as_tuple=True)
    found = (t[at] for t in (weights, following, likely.long(), odds.float()))
    return TextBatch(tokens, features, *at, *found)


def batches(texts: Sequence[Text], tokens: int) -> Iterator[TextBatch]:
    """All texts with an answer, in batches of about `tokens` tokens; neighbours in length go
    together."""
    answered = [text for text in texts if (text.roles == ANSWER).any()]
    order = sorted(answered, key=lambda text: len(text.tokens))
    batch: list[Text] = []
    for text in order:
        if batch and (len(batch) + 1) * len(text.tokens) > tokens:
            yield collate(batch)
            batch = []
        batch.append(text)
    if batch:
        yield collate(batch)


def precision(target: Target) -> AbstractContextManager[None]:
    """The context in which passes are computed: in 16 bits where the target is in 16 bits."""
    matrix = target.matrix
    if matrix.dtype == torch.float32:
        return nullcontext()
    return torch.autocast(matrix.device.type, dtype=matrix.dtype)


class PassOutputs(NamedTuple):
    """Outputs [some, width], and which places of the batch they are for, [some] int64."""

    outputs: Tensor
    places: Tensor


def passes(
    head: DraftHead, target: Target, batch: TextBatch, steps: int, share: float = 1.0
) -> Iterator[PassOutputs]:
    """From which the tokens after `text, at` are guessed: pass k from features that end k + 1
    tokens before, for places that have as many before them.

    share: of the rows that take part in the passes after the first, at random.
    """
    rows = batch.tokens.shape[1] - 1
    ids = F.pad(batch.tokens[:, 1:], (0, steps - 1))
    embedded = F.embedding(ids, target.table)
    positions = torch.arange(rows + steps - 1)
    rotation = target.rotary.at(positions, len(positions) - 1)[0]  # as `export.py` writes it
    cos, sin = rotation.cos.squeeze(1), rotation.sin.squeeze(1)
    further = _some_rows(batch, rows, share)
    where = torch.arange(rows)  # of each row in the outputs
    done = head.unrolled(embedded, batch.features[:, :-1], cos, sin, steps, further)
    for k, out in enumerate(done):
        if k == 1:
            where = torch.full((rows,), -1)
            where[further] = torch.arange(len(further))
        row = batch.at - 1 - k
        places = ((row >= 0) & (where[row.clamp_min(0)] >= 0)).nonzero().squeeze(1)
        yield PassOutputs(out[batch.text[places], where[row[places]]], places)


def _some_rows(batch: TextBatch, rows: int, share: float) -> Tensor:
    """A random share of the rows that places of the batch can follow, ascending."""
    if share >= 1:
        return torch.arange(rows)
    first = int(batch.at.min()) - 1
    count = max(round(share * (rows - first)), 1)
    return first + torch.randperm(rows - first)[:count].sort().values


def _columns(target: Target, batch: TextBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The target's distribution over those outputs that matter in this batch.

    Returns which outputs, [columns]; probabilities [n, columns] that sum to one; and how likely the
    target finds the draft vocabulary as a whole, [n].
    """
    place = target.place[batch.likely]
    odds = batch.odds * (place >= 0)
    mass = odds.sum(-1)
    draft = len(target.kept)
    chosen = torch.zeros(draft, dtype=torch.bool)
    chosen[place[place >= 0]] = True
    chosen[torch.randint(draft, (EXTRA,))] = True
    columns = chosen.nonzero().squeeze(1)
    index = (chosen.cumsum(0) - 1)[place.clamp_min(0)].clamp_min(0)
    odds = odds / mass.clamp_min(1e-6)[:, None]
    return columns, torch.zeros(len(place), len(columns)).scatter_add_(1, index, odds), mass


def loss(
    head: DraftHead, target: Target, batch: TextBatch, steps: int, decay: float, share: float = 1.0
) -> tuple[Tensor, list[float]]:
    """The loss to be minimised, and the mean cross-entropy of each pass.

    Pass k counts decay**k. Tokens that are not in the draft vocabulary cannot be guessed: a place
    counts as much as the target finds that vocabulary likely. `share`: see `passes`.
    """
    columns, wanted, mass = _columns(target, batch)
    matrix = target.matrix[columns]
    weights = batch.weights * mass
    total = torch.zeros(())
    means = []
    for k, (out, places) in enumerate(passes(head, target, batch, steps, share)):
        counts = weights[places]
        part = cross_entropy(out.to(matrix.dtype), matrix, wanted[places], counts)
        part = part / counts.sum().clamp_min(1.0)
        total = total + decay**k * part
        means.append(float(part.detach()))
    return total / sum(decay**k for k in range(steps)), means
