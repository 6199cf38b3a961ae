"""What the target model writes alone, and the comparison of a text with that."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIE = 1e-4
"""Two logits that are this close are a tie: the order of a sum decides which one is larger."""

Reference = tuple[list[int], list[float]]
"""Tokens, and for each the gap between the two best logits where it was picked, if known."""


@dataclass(frozen=True)
class Comparison:
    """One text against the reference. `position` counts new tokens from 0."""

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
            f"got {self.got}; gap of the two best logits {gap}"
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


def plain_reference(
    folder: Path,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    context: int,
    eos: Collection[int],
    dtype: str,
    device: str,
) -> list[Reference]:
    """What `transformers` generates greedily from each prompt, in this process.

    Penalties and other settings from the model's `generation_config.json` are ignored: they are not
    part of the model, and a ring does not know them.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), local_files_only=True, trust_remote_code=False
    )
    model.to(device).eval()
    settings: Any = GenerationConfig  # its constructor has no types
    model.generation_config = settings(
        do_sample=False, eos_token_id=sorted(eos) or None, pad_token_id=min(eos, default=0)
    )
    done: list[Reference] = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)], device=device)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=min(new_tokens, context - len(prompt)),
            return_dict_in_generate=True,
            output_logits=True,
        )
        best = [logits[0].float().topk(2).values for logits in out.logits]
        gaps = [float(top[0] - top[1]) for top in best]
        done.append((out.sequences[0, len(prompt) :].tolist(), gaps))
    return done
