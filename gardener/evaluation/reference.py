"""What the target model writes alone, and the comparison of a text with that."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gardener.model.noise import Noise
from gardener.model.sampler import Picking, Sampler
from gardener.model.shortlist import Shortlist, shortens
from gardener.protocol.sampling import GREEDY, Sampling

if TYPE_CHECKING:
    from torch import Tensor

TIE = 1e-4
"""Two scores that are this close are a tie: the order of a sum decides which one is larger."""

Reference = tuple[list[int], list[float]]
"""Tokens, and for each the gap between the two best scores where it was picked, if known."""


@dataclass(frozen=True)
class Comparison:
    """One text against the reference. `position` counts new tokens from 0. `gap`: between the two
    best scores there, which are logits by the temperature, with their noise."""

    prompt: int
    policy: str
    tokens: int
    outcome: str  # same, tie or different
    position: int | None = None
    expected: int | None = None
    got: int | None = None
    gap: float | None = None

    def __str__(self) -> str:
        head = f"prompt {self.prompt}, {self.policy}: "
        if self.outcome == "same":
            return f"{head}{self.tokens} tokens, the same"
        gap = "unknown" if self.gap is None else f"{self.gap:.2e}"
        return (
            f"{head}{self.outcome.upper()} at token {self.position}: expected {self.expected}, "
            f"got {self.got}; gap of the two best scores {gap}"
        )


def compare(prompt: int, policy: str, reference: Reference, got: Sequence[int]) -> Comparison:
    """Where `got` first differs from the reference, and whether there is a tie."""
    expected, gaps = reference
    for position in range(max(len(expected), len(got))):
        want = expected[position] if position < len(expected) else None
        have = got[position] if position < len(got) else None
        if want != have:
            gap = gaps[position] if position < len(gaps) else None
            outcome = "tie" if gap is not None and gap < TIE else "different"
            return Comparison(prompt, policy, len(got), outcome, position, want, have, gap)
    return Comparison(prompt, policy, len(got), "same")


class Chosen(NamedTuple):
    """A token, and how far the second best one was behind it: see `Comparison.gap`."""

    token: int
    gap: float


Pick = Callable[[Sequence[int], "Tensor"], Chosen]
"""Given the text so far, with the prompt, and the logits [vocabulary] after it: what follows."""


def picker(sampling: Sampling, prompt: int) -> Pick:
    """How a request with these settings picks after a prompt of so many tokens: as the last stage
    does. Raises ValueError for noise without a seed."""
    sampler = Sampler(sampling, prompt)
    noise = None
    if not sampling.is_greedy and sampling.seed is not None:
        noise = Noise(sampling.seed)

    def pick(text: Sequence[int], logits: "Tensor") -> Chosen:
        place = len(text)  # of the token that is picked
        picking = Picking(sampler, (place,), text, place, ((),))
        (token,) = sampler.pick(logits[None], picking).tokens
        noisy = scores = sampler.scores(logits[None], picking)[0]
        if noise is not None:
            noisy = scores + scores.new_tensor(noise.row(place, len(scores)))
        return Chosen(token, float(noisy[token]) - _second(noisy, scores, token, sampling))

    return pick


def _second(noisy: "Tensor", scores: "Tensor", first: int, sampling: Sampling) -> float:
    """The highest score with noise, but that of the pick, among the tokens [vocabulary] that min-p,
    top-k and top-p leave; -inf if these leave no other."""
    rest = noisy.clone()
    rest[first] = -math.inf
    token, top = int(rest.argmax()), float(scores.amax())
    if sampling.is_greedy or not shortens(sampling) or not math.isfinite(top):
        return float(rest[token])
    shortlist = Shortlist(scores, top, sampling)
    while float(rest[token]) > -math.inf and not shortlist.keeps(float(scores[token])):
        rest = rest.masked_fill(scores <= scores[token], -math.inf)  # what is left stands higher
        token = int(rest.argmax())
    return float(rest[token])


def plain_reference(
    folder: Path,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    context: int,
    eos: Collection[int],
    dtype: str,
    device: str,
    sampling: Sampling = GREEDY,
) -> list[Reference]:
    """What follows each prompt if `transformers` gives the logits, one token after the other, in
    this process, and these settings pick.

    Settings from the model's `generation_config.json` are ignored: they are not part of the model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), local_files_only=True, trust_remote_code=False
    )
    model.to(device).eval()

    def follows(prompt: Sequence[int]) -> Reference:
        pick, text, gaps = picker(sampling, len(prompt)), list(prompt), list[float]()
        most = min(len(prompt) + new_tokens, context)
        new, cache = text, None
        while len(text) < most:
            ids = torch.tensor([new], device=device)
            out = model(ids, past_key_values=cache, use_cache=True)
            chosen = pick(text, out.logits[0, -1].float())
            text.append(chosen.token)
            gaps.append(chosen.gap)
            if chosen.token in eos:
                break
            new, cache = [chosen.token], out.past_key_values
        return text[len(prompt) :], gaps

    with torch.no_grad():
        return [follows(prompt) for prompt in prompts]
