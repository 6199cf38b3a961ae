"""What the target model writes after a prompt, with its features.

It is computed once and played back often: whether a guess is accepted follows from the text alone,
so nothing else of the target model is needed to measure drafters and policies.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from torch import Tensor

from gardener.model.batch_decoder import BatchDecoder
from gardener.model.loader import Whole
from gardener.model.sampler import Picking, Sampler
from gardener.protocol.sampling import GREEDY, Sampling

CHUNK = 128
"""Most tokens of a prompt that are read in one pass."""


@dataclass(slots=True)
class Headway:
    """How far a recording is: answers, prompt tokens read, and tokens written. `most`: how many are
    written if no answer ends early."""

    texts: int
    prompts: int
    most: int
    done: int = 0
    read: int = 0
    written: int = 0

    def __str__(self) -> str:
        texts = f"{self.done} of {self.texts} answers, " if self.texts > 1 else ""
        if self.read < self.prompts:
            texts += f"{self.read} of {self.prompts} tokens of prompts read, "
        return f"{texts}{self.written} of at most {self.most} tokens written"


@dataclass(frozen=True, eq=False)
class Recording:
    """A text, whose first `prompt` tokens are the prompt. `features` [tokens, taps * width] has a
    row for each token, though perhaps not for the last one. `sampling`: how it was picked, see
    `what_counts`."""

    tokens: tuple[int, ...]
    prompt: int
    features: Tensor
    sampling: Sampling = GREEDY


def what_counts(sampling: Sampling) -> Sampling:
    """The same without what has no influence: settings that write the same text are equal then."""
    if sampling.is_greedy:
        sampling = msgspec.structs.replace(sampling, seed=None, top_p=1.0, top_k=0, min_p=0.0)
    if not sampling.min_tokens:
        sampling = msgspec.structs.replace(sampling, eos=())
    return sampling


def record(
    whole: Whole,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    eos: frozenset[int],
    taps: Sequence[int],
    lanes: int = 16,
    tell: Callable[[Headway], None] = lambda headway: None,
    sampling: Sampling = GREEDY,
) -> list[Recording]:
    """The answers to `prompts`, in their order. Each ends with a token of `eos` or has `new_tokens`
    tokens. `tell` is called after each forward pass. Raises ValueError for noise without a seed."""
    sampling = what_counts(sampling)
    room = max(len(prompt) for prompt in prompts) + new_tokens
    batch = BatchDecoder(whole, min(lanes, len(prompts)), room, taps, seed=0)
    headway = Headway(len(prompts), sum(map(len, prompts)), len(prompts) * new_tokens)
    made: list[Recording | None] = [None] * len(prompts)
    waiting = iter(range(len(prompts)))

    def begin(number: int) -> _Lane:
        lane = _Lane(prompts, next(waiting, None), sampling)
        for first, tokens in lane.chunks():
            batch.read(number, first, tokens)
            headway.read += len(tokens)
            tell(headway)
        return lane

    def pick(logits: Tensor) -> list[int]:
        return [lane.pick(row[None]) for lane, row in zip(playing, logits, strict=True)]

    playing = [begin(number) for number in range(batch.count)]
    while any(lane.index is not None for lane in playing):
        drawn = batch.step(
            [lane.tokens[lane.at] for lane in playing],
            [lane.at for lane in playing],
            [0.0] * batch.count,
            None if sampling.changes_nothing else pick,
        )
        for number, lane in enumerate(playing):
            if lane.index is None:
                continue
            headway.read += lane.at < lane.prompt
            headway.written += 1
            if not lane.take(drawn[number], new_tokens, eos):
                continue
            features = batch.kept(number, len(lane.tokens) - 1).features
            made[lane.index] = Recording(tuple(lane.tokens), lane.prompt, features, sampling)
            headway.done += 1
            playing[number] = begin(number)
        tell(headway)
    return [recording for recording in made if recording is not None]


class _Lane:
    """The text that one lane writes: the answer to prompt `index`, or none any more. The prompt is
    read before, except for its last token."""

    def __init__(
        self, prompts: Sequence[Sequence[int]], index: int | None, sampling: Sampling
    ) -> None:
        self.index = index
        self.tokens = [0] if index is None else list(prompts[index])
        self.prompt = len(self.tokens)
        self.at = self.prompt - 1
        self._sampler = Sampler(sampling, self.prompt)

    def chunks(self) -> Iterator[tuple[int, Sequence[int]]]:
        """The pieces of the prompt to read: where each begins, and its tokens."""
        for first in range(0, self.at, CHUNK):
            yield first, self.tokens[first : min(first + CHUNK, self.prompt - 1)]

    def pick(self, logits: Tensor) -> int:
        """The token after `at`, from its logits [1, vocabulary]; any, if nothing is written."""
        if self.index is None:
            return 0
        length = len(self.tokens)
        picking = Picking(self._sampler, [self.at + 1], self.tokens, length, [()])
        return self._sampler.pick(logits, picking).tokens[0]

    def take(self, drawn: int, new_tokens: int, eos: frozenset[int]) -> bool:
        """Take the token after `at`. Returns whether the answer is complete."""
        self.at += 1
        self.tokens.append(drawn)
        return drawn in eos or len(self.tokens) - self.prompt == new_tokens
