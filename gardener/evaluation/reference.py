"""What the target model writes alone, and the comparison of a text with that."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from gardener.model.architecture import Architecture
from gardener.protocol.sampling import GREEDY, Sampling

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


def compare(
    prompt: int, policy: str, reference: Reference, got: Sequence[int], tie: float = TIE
) -> Comparison:
    """Where `got` first differs from the reference, and whether there is a tie: two scores that are
    closer than that."""
    expected, gaps = reference
    for position in range(max(len(expected), len(got))):
        want = expected[position] if position < len(expected) else None
        have = got[position] if position < len(got) else None
        if want != have:
            gap = gaps[position] if position < len(gaps) else None
            outcome = "tie" if gap is not None and gap < tie else "different"
            return Comparison(prompt, policy, len(got), outcome, position, want, have, gap)
    return Comparison(prompt, policy, len(got), "same")


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
    Raises UserError where transformers does not take all the weights of the folder.
    """
    import torch
    import transformers

    from gardener.evaluation.picking import picker
    from gardener.evaluation.transformers_model import load_transformers

    model = load_transformers(folder, getattr(torch, dtype))
    model.to(device).eval()
    # A cache that transformers makes by itself drops keys where the config names windows, also in a
    # family that has none. Its logits without a cache are what counts.
    windowed = any(window is not None for window in Architecture.read(folder).windows)
    beginning = (lambda: None) if windowed else transformers.DynamicCache

    def follows(prompt: Sequence[int]) -> Reference:
        pick, text, gaps = picker(sampling, len(prompt)), list(prompt), list[float]()
        most = min(len(prompt) + new_tokens, context)
        new, cache = text, beginning()
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
