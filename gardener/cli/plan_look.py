"""What `gardener plan` sees of a ring: its cards, what its drafter takes, and how fast it is."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gardener.cli.output import progress
from gardener.cli.program import ignore, note
from gardener.cluster.plan.machines import Drift
from gardener.decoding.policy import Bounds
from gardener.errors import GardenerError
from gardener.holder.answer import Answer, collect
from gardener.protocol.messages import Card
from gardener.rings.open import open_ring
from gardener.rings.opened import OpenRing
from gardener.rings.settings import RingSettings

if TYPE_CHECKING:  # these import torch
    from gardener.decoding.curves import Curve
    from gardener.draft.drafter import Drafter

WARM_TOKENS = 16
"""Most tokens of the answers that warm a ring up before it is measured."""


@dataclass(frozen=True)
class Wish:
    """What is to be planned, and how. `acceptance`: how often the best guess is right; None: that
    is found out. `run`: ask the ring, too."""

    settings: RingSettings
    prompts: Sequence[str]
    raw: bool
    new_tokens: int
    policy: str
    bounds: Bounds
    acceptance: float | None
    run: bool
    verbose: bool

    @property
    def policies(self) -> tuple[str, str]:
        """What is compared."""
        return "plain", self.policy


@dataclass(frozen=True)
class Seen:
    """What was seen of a ring. `cards`: the holder's own in front. `prompts` in tokens. `draft`:
    what a pass of the drafter takes that takes time. `answers`: of each policy, if it was
    asked, and `drift`: what the holder saw then."""

    cards: Sequence[Card]
    folder: Path
    drafters: "Sequence[Drafter]"
    draft: "Curve | None"
    prompts: Sequence[Sequence[int]]
    eos: frozenset[int]
    context: int
    answers: dict[str, list[Answer]]
    drift: Drift | None

    def about(self, new_tokens: int) -> int:
        """Tokens of a text, about, in the middle of such an answer."""
        return sum(map(len, self.prompts)) // len(self.prompts) + new_tokens // 2


async def look(wish: Wish) -> Seen:
    """Open the ring, and note what it says of itself and does."""
    heard = note if wish.verbose else ignore
    async with open_ring(wish.settings, note, heard, progress) as ring:
        prompts = [ring.prompter.encode(text, raw=wish.raw) for text in wish.prompts]
        cards = (ring.holder.ring.card, *ring.stages)
        draft = await _draft_curve(wish, ring)
        answers = await _answers(wish, ring, prompts) if wish.run else {}
        return Seen(
            cards,
            ring.folder,
            ring.holder.drafters.all,
            draft,
            prompts,
            ring.prompter.eos,
            ring.longest,
            answers,
            _drift(ring.holder.costs.facts()) if answers else None,
        )


def _drift(facts: dict[str, Any]) -> Drift:
    return Drift(tuple(facts["levels"]), facts["beyond"])


async def _draft_curve(wish: Wish, ring: OpenRing) -> "Curve | None":
    drafters = ring.holder.drafters.all
    if wish.settings.simulate is None:
        from gardener.draft.timing import draft_curve  # late: it imports torch

        width, vocabulary = ring.stages[0].width, ring.prompter.vocabulary
        return await asyncio.to_thread(draft_curve, drafters, width, vocabulary)
    from gardener.rings.simulate.profile import read_profile

    slow = any(not each.instant for each in drafters)
    return read_profile(wish.settings.profile).draft() if slow else None


async def _answers(
    wish: Wish, ring: OpenRing, prompts: Sequence[Sequence[int]]
) -> dict[str, list[Answer]]:
    """Each prompt under every policy in turn, after one that warms the ring up."""

    async def answer(tokens: Sequence[int], policy: str, most: int) -> Answer:
        session = ring.ask_tokens(tokens, max_new_tokens=most, policy=policy, bounds=wish.bounds)
        given = await collect(session)
        if given.error:
            raise GardenerError(given.error)
        return given

    for policy in wish.policies:
        await answer(prompts[0], policy, min(WARM_TOKENS, wish.new_tokens))
    found: dict[str, list[Answer]] = {policy: [] for policy in wish.policies}
    for number, tokens in enumerate(prompts, 1):
        progress(f"asking the ring: prompt {number} of {len(prompts)}")
        for policy in wish.policies:
            found[policy].append(await answer(tokens, policy, wish.new_tokens))
    progress("")
    return found
