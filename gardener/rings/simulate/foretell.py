"""How fast a ring of known machines should be: it is simulated, with the real policies and drafter.

A formula would have to know what policies send and when, how often guesses come true at which
place of a tree, and what a miss costs while segments are under way. The simulation knows all of it,
for it is the same code. What it needs besides the machines' times is a text: what the target model
writes, or one that is made up (`made_up.py`).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gardener.decoding.curves import Curve, Hop
from gardener.decoding.limits import Limits
from gardener.decoding.policy import Bounds, make
from gardener.draft.block_drafter import BlockDrafter
from gardener.draft.calibration import Calibration
from gardener.draft.drafter import Drafter
from gardener.draft.incremental import Incremental
from gardener.draft.ngram import HitRates, NGram
from gardener.errors import GardenerError
from gardener.holder.answer import collect
from gardener.holder.figures import Figures
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.profile import HolderTerms, LinkTerms, Profile
from gardener.rings.simulate.ring import SimulatedModel, simulated_ring

CHUNK = 128
"""Rows of a prompt that go in one segment, as everywhere."""

WIDEST = 1e9
"""Mbit/s of a link whose bandwidth nobody knows, or that is wider than anybody can tell."""


@dataclass(frozen=True)
class Asked:
    """What a ring is asked, and what it answers: each prompt under every policy in turn.

    library   has the answers to all prompts, `new_tokens` of each or up to their end
    context   most tokens of prompt and answer together
    """

    library: Library
    prompts: Sequence[Sequence[int]]
    new_tokens: int
    context: int
    policies: Sequence[str]
    drafters: Sequence[Drafter]
    bounds: Bounds = field(default_factory=Bounds)


def profile_of(
    curves: Sequence[Curve],
    hops: Sequence[Hop],
    row_bytes: int,
    draft: Curve | None,
    holder: HolderTerms,
    overhead_ms: float,
) -> Profile:
    """The profile of a ring whose machines differ: seconds of a pass at each stage, the links
    around it, bytes of a hidden state, and what a pass of the drafter takes."""
    stages = tuple(_points(curve) for curve in curves)
    links = tuple(_terms(hop) for hop in hops)
    return Profile(
        model=stages[0],  # not looked at
        row_bytes=row_bytes,
        link=links[0],
        drafter=((1, 0.0),) if draft is None else _points(draft),
        overhead_ms=overhead_ms,
        holder=holder,
        name="measured",
        stages=stages,
        links=links,
    )


async def foretell(
    profile: Profile, model: SimulatedModel, asked: Asked
) -> Mapping[str, Sequence[Figures]]:
    """What each answer costs, by policy, in the order of the prompts. Runs on a loop that is
    virtual (`simulate.loop.Loop`), and twice the same. Raises GardenerError."""
    found: dict[str, list[Figures]] = {name: [] for name in asked.policies}
    eos, stages = asked.library.eos, len(profile.stages)
    limits = Limits(asked.new_tokens, asked.context, eos)
    drafters = [fresh(drafter) for drafter in asked.drafters]
    async with simulated_ring(stages, profile, asked.library, model, drafters) as ring:
        ring.holder.keeps = False  # or a second answer would not read its prompt
        for prompt in asked.prompts:
            for name in asked.policies:
                session = ring.holder.open(prompt, make(name, asked.bounds), limits, CHUNK)
                given = await collect(session)
                if given.error:
                    raise GardenerError(f"a simulated ring failed: {given.error}")
                found[name].append(given.figures)
    return found


def fresh(drafter: Drafter) -> Drafter:
    """The same drafter without what it has learned from texts, so that none is read with what the
    last simulation left."""
    again = copy.copy(drafter)
    if isinstance(again, Incremental | BlockDrafter):
        again.calibration = Calibration(again.calibration.weights)
    elif isinstance(again, NGram):
        again.hit_rates = HitRates()
    return again


def _points(curve: Curve) -> tuple[tuple[int, float], ...]:
    return tuple((rows, seconds * 1e3) for rows, seconds in curve.points)


def _terms(hop: Hop) -> LinkTerms:
    return LinkTerms(hop.delay * 1e3, min(hop.bandwidth * 8e-6, WIDEST))
