"""What `gardener plan` simulates: which text, beside which times that no stage has measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gardener.cli.output import progress
from gardener.cli.plan_look import Seen, Wish
from gardener.cli.program import note
from gardener.cluster.plan.machines import HolderTime, Machines
from gardener.cluster.plan.plan import Rates, Trial, Trials
from gardener.cluster.plan.rates import rate
from gardener.errors import UserError
from gardener.holder.figures import Figures
from gardener.model.checkpoint.folders import weight_bytes
from gardener.rings.settings import RingSettings

if TYPE_CHECKING:  # these import torch
    from gardener.rings.simulate.foretell import Asked
    from gardener.rings.simulate.library import Library

RATHER = 0.6
"""How often the best guess is right, where nobody knows: about as often as a good EAGLE head's."""

MOST_BYTES = 2**29
"""Of weights on the disk, with which a model is computed here to see what it writes."""

USUAL = "loopback"
"""The profile that says what a pass takes besides, and the holder's event loop."""


@dataclass(frozen=True)
class Beside:
    """Seconds that things take which no stage has measured, and what is to be said of that.
    `overhead`: of a pass, whatever it holds."""

    holder: HolderTime
    overhead: float
    told: tuple[str, ...]


def beside_of(settings: RingSettings) -> Beside:
    """Of a simulated ring its profile says it; stages that were simulated have measured what a pass
    takes besides."""
    from gardener.rings.simulate.profile import read_profile

    simulated = settings.simulate is not None
    profile = read_profile(settings.profile if simulated else USUAL)
    terms = profile.holder
    holder = HolderTime(terms.event_ms * 1e-3, terms.node_ms * 1e-3)
    if simulated:
        return Beside(holder, 0.0, (f"all times are those of the profile {profile.name}",))
    told = (
        f"besides what a stage has measured, a pass takes {profile.overhead_ms:g} ms, and the "
        f"holder takes {terms.event_ms:g} ms for an event and {terms.node_ms:g} ms for a node in "
        "it: so it was on another machine"
    )
    return Beside(holder, profile.overhead_ms * 1e-3, (told,))


def asked_of(wish: Wish, seen: Seen) -> "tuple[Asked, str]":
    """What is asked of the simulated rings, and where it comes from."""
    from gardener.rings.simulate.foretell import Asked

    why = "" if wish.acceptance is None else "--acceptance says so"
    if not why:
        library, why = _recorded(wish, seen)
        if library is not None:
            many = len(seen.prompts)
            told = (
                f"guesses come true as those of the drafter do on what the model writes (greedily, "
                f"in float32) after {many} prompt{'s' * (many > 1)} of the package, "
                f"{wish.new_tokens} tokens each: other texts are guessed better or worse"
            )
            terms = (seen.prompts, wish.new_tokens, seen.context, wish.policies, seen.drafters)
            return Asked(library, *terms, wish.bounds), told
    return _made_up(wish, seen, why)


def _recorded(wish: Wish, seen: Seen) -> "tuple[Library | None, str]":
    """What the model writes after the prompts, or None and why that cannot be found out."""
    from gardener.rings.simulate.targets import Targets

    on_disk = weight_bytes(seen.folder)
    if not on_disk:
        return None, "the weights of the model are not here"
    if on_disk > MOST_BYTES:
        return None, f"the model is too large to be computed here ({on_disk / 2**30:.1f} GiB)"
    taps = next((each.taps for each in seen.drafters if each.taps), ())
    try:
        targets = Targets(seen.folder, seen.eos, taps, note, progress)
        targets.prepare(seen.prompts, wish.new_tokens)
    except UserError as error:
        return None, f"the model cannot be computed here: {error}"
    return targets.library, ""


def _made_up(wish: Wish, seen: Seen, why: str) -> "tuple[Asked, str]":
    """A text that is made up, and the sentence that says so."""
    from gardener.rings.simulate import made_up
    from gardener.rings.simulate.foretell import Asked

    right, many = wish.acceptance or RATHER, len(seen.prompts)
    library = made_up.made_up(many, wish.new_tokens, seen.cards[1].layers)
    prompts = made_up.prompts(many, wish.new_tokens)
    drafter = made_up.MadeUpDrafter(library, right)
    told = (
        f"the drafter's best guess is right at {right:.0%} of all places, however far ahead it "
        f"guesses ({why}), and it takes {_told_time(seen)}: with a better or worse drafter, "
        "guesses bring more or less"
    )
    terms = (prompts, wish.new_tokens, seen.context, wish.policies, (drafter,))
    return Asked(library, *terms, wish.bounds), told


def _told_time(seen: Seen) -> str:
    if seen.draft is None:
        return "no time, for no drafter that takes any is loaded"
    return f"{1e3 * seen.draft(1):.3g} ms for a pass, as the one that is loaded"


async def rates_of(trials: Trials, wish: Wish, asked: "Asked") -> dict[Trial, Rates]:
    """What all trials come to; rings that are alike are simulated once."""
    known: dict[Machines, Rates] = {}
    for number, machines in enumerate(trials.rings.values(), 1):
        if machines not in known:
            progress(f"simulating ring {number} of {len(trials.rings)}")
            known[machines] = both(await _simulated(machines, asked), wish.policy)
    progress("")
    return {trial: known[machines] for trial, machines in trials.rings.items()}


async def _simulated(machines: Machines, asked: "Asked") -> "Mapping[str, Sequence[Figures]]":
    from gardener.rings.simulate.foretell import foretell, profile_of
    from gardener.rings.simulate.profile import HolderTerms
    from gardener.rings.simulate.ring import SimulatedModel

    ring, holder = machines.ring, machines.holder
    profile = profile_of(
        machines.curves,
        machines.hops,
        machines.row_bytes,
        machines.draft,
        HolderTerms(holder.event * 1e3, holder.node * 1e3),
        machines.overhead * 1e3,
    )
    model = SimulatedModel(ring.layers, machines.width, ring.model)
    return await foretell(profile, model, asked)


def reckoned(now: Machines, wish: Wish, seen: Seen) -> list[str]:
    """What else is taken for granted."""
    told = [
        "a stage that holds other layers takes longer or shorter for any number of rows by the "
        f"factor by which a row alone does; texts have some {seen.about(wish.new_tokens)} tokens"
    ]
    if len(now.numbers) > 1:
        told.append(
            "without a stage, the new link is as slow as the slower one of the two in its place, "
            "and whoever gets the head computes it as much slower or faster than who has it now "
            "as it computes a layer"
        )
    if wish.settings.crowded:
        told.append(
            "the stages and the drafter share the cores of one machine, but none of them is "
            "slowed by another one: a stage that is left out would leave its cores to the others, "
            "which is not counted"
        )
    return told


def both(figures: Mapping[str, Sequence[Figures]], policy: str) -> Rates:
    """Tokens per second of plain answers, and of those of a policy. Raises UserError where nothing
    can be told from such short answers."""
    plain = figures["plain"]
    rates = Rates(rate(plain, plain), rate(plain, figures[policy]))
    if not all(rates):
        raise UserError(
            "the answers have a token each, which says nothing of speed: give a larger "
            "--max-new-tokens, or more --prompts"
        )
    return rates
