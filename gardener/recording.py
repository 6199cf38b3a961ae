"""What the target writes after a prompt, greedily, with its features: computed once, read often.

For measuring drafters: whether a guess comes true follows from the text alone, so nothing else of
the target need be computed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gardener.stages.lanes import Lanes
from gardener.stages.load import Whole


@dataclass(frozen=True, eq=False)
class Recording:
    """A text: the first `prompt` tokens are the prompt. `features` [tokens, taps * width] of all
    but perhaps the last token."""

    tokens: tuple[int, ...]
    prompt: int
    features: Tensor


def record(
    whole: Whole,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    eos: frozenset[int],
    taps: Sequence[int],
    lanes: int = 16,
) -> list[Recording]:
    """The answers to `prompts`, in their order. They end with a token of `eos`, or are
    `new_tokens` long."""
    room = max(len(prompt) for prompt in prompts) + new_tokens
    batch = Lanes(whole, min(lanes, len(prompts)), room, taps, seed=0)
    made: list[Recording | None] = [None] * len(prompts)
    waiting = iter(range(len(prompts)))
    playing = [_Lane(prompts, next(waiting, None)) for _ in range(batch.count)]
    while any(lane.index is not None for lane in playing):
        drawn = batch.step(
            [lane.tokens[lane.at] for lane in playing],
            [lane.at for lane in playing],
            [0.0] * batch.count,
        )
        for number, lane in enumerate(playing):
            if lane.index is None or not lane.take(drawn[number], new_tokens, eos):
                continue
            features = batch.kept(number, len(lane.tokens) - 1).features
            made[lane.index] = Recording(tuple(lane.tokens), lane.prompt, features)
            playing[number] = _Lane(prompts, next(waiting, None))
    return [recording for recording in made if recording is not None]


class _Lane:
    """The text that one lane is at: prompt `index`, or none any more."""

    def __init__(self, prompts: Sequence[Sequence[int]], index: int | None) -> None:
        self.index, self.at = index, 0
        self.tokens = [0] if index is None else list(prompts[index])
        self.prompt = len(self.tokens)

    def take(self, drawn: int, new_tokens: int, eos: frozenset[int]) -> bool:
        """What came after token `at`. Returns whether the answer is complete."""
        self.at += 1
        if self.at < len(self.tokens):
            return False
        self.tokens.append(drawn)
        return drawn in eos or len(self.tokens) - self.prompt == new_tokens
