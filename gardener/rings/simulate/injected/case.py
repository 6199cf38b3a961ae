"""A ring, what is asked of it, and what goes wrong: all drawn from one seed."""

from dataclasses import dataclass
from random import Random

from gardener.decoding.policy import POLICIES, Bounds
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.rings.simulate.injected.faults import (
    CRASHES,
    CUTS,
    HOLDER_ENDS,
    KINDS,
    NEVER,
    ON_LINKS,
    ON_STAGES,
    PARTINGS,
    Fault,
    When,
)
from gardener.rings.simulate.injected.written import EOS, VOCABULARY, answer
from gardener.rings.simulate.profile import LinkTerms, Profile
from gardener.rings.simulate.ring import SimulatedModel

LAYERS = 4
TEAMS: tuple[tuple[str, ...], ...] = ((), ("ngram",), ("ngram", "slow"), ("slow with features",))
"""Drafters that may draft together."""

BASE = 20
"""Tokens with which most prompts begin."""


@dataclass(frozen=True)
class Ask:
    """One request: `text` is what it must get. Its consumer goes away after so many tokens
    (`leaves`), or so many seconds (`stays`), if he does."""

    prompt: tuple[int, ...]
    text: tuple[int, ...]  # with the tokens that nobody asked for any more
    new_tokens: int
    sampling: Sampling
    policy: str
    bounds: Bounds
    begins: float
    leaves: int | None
    stays: float | None

    @property
    def whole(self) -> list[int]:
        """All that may be written."""
        return list(self.text[: self.new_tokens])

    @property
    def reason(self) -> str:
        """With which it ends."""
        return "eos" if self.whole[-1] == EOS else "length"


@dataclass(frozen=True)
class Case:
    """`seed` reproduces all of it."""

    seed: int
    stages: int
    profile: Profile
    model: SimulatedModel
    drafters: tuple[str, ...]
    keep: bool
    most: int  # requests that run at the same time
    patience: float  # for which requests wait for a ring that broke
    asks: tuple[Ask, ...]
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.stages} stages, {len(self.asks)} requests, "
            f"{self.most} at a time, patience {self.patience:g} s, drafters "
            f"{', '.join(self.drafters) or 'none'}, {'keeps' if self.keep else 'keeps nothing'}, "
            f"memory for {self.model.slots or 'any'} slots"
        ]
        for at, ask in enumerate(self.asks, 1):
            left = "" if ask.leaves is None else f", left after {ask.leaves} tokens"
            left += "" if ask.stays is None else f", left after {ask.stays:.6f} s"
            picked = "greedy" if ask.sampling.is_greedy else "sampled"
            lines.append(
                f"  request {at}: {len(ask.prompt)} + {len(ask.whole)} tokens, {picked}, "
                f"{ask.policy}, from {ask.begins:.3f} s{left}"
            )
        return "\n".join([*lines, *(f"  {fault}" for fault in self.faults)])


def draw(seed: int) -> Case:
    """The case of a seed."""
    chance = Random(f"case {seed}")
    stages = chance.choices((1, 2, 3, 4), (2, 4, 3, 1))[0]
    count = chance.choices((1, 2, 3, 4), (5, 3, 2, 1))[0]
    patience = chance.choices((60.0, chance.uniform(0.5, 8.0), 0.0), (6, 3, 1))[0]
    asks = _asks(chance, count)
    return Case(
        seed,
        stages,
        _profile(chance, seed),
        SimulatedModel(LAYERS, 1, slots=chance.choices((0, 1400, 640), (4, 1, 1))[0]),
        chance.choices(TEAMS, (1, 4, 2, 2))[0],
        keep=chance.random() < 0.6,
        most=chance.choice((1, 2, 8)),
        patience=patience,
        asks=asks,
        faults=_faults(chance, stages, patience),
    )


def _profile(chance: Random, seed: int) -> Profile:
    milliseconds = chance.choice((10.0, 40.0, 120.0))
    return Profile(
        model=((1, milliseconds), (16, milliseconds), (32, 2 * milliseconds)),
        row_bytes=4,
        link=LinkTerms(chance.choice((0.1, 1.0, 15.0)), 50.0, chance.choice((0.0, 0.0, 2.0))),
        drafter=((1, 5.0),),
        seed=seed,
        name="injected",
    )


def _asks(chance: Random, count: int) -> tuple[Ask, ...]:
    base = tuple(chance.randrange(VOCABULARY) for _ in range(BASE))
    asks: list[Ask] = []
    for number in range(count):
        own = (
            EOS + 1 + number,
            *(chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 5))),
        )
        prompt = (*base[: chance.choice((2, 18, BASE))], *own)
        begins = chance.uniform(0.0, 0.3)
        if asks and chance.random() < 0.3:  # goes on with what was said before
            before = asks[-1]
            prompt = (*before.prompt, *before.whole[: chance.randint(1, len(before.whole))], *own)
            begins = before.begins + chance.uniform(0.0, 2.0)
        asks.append(_ask(chance, prompt, begins))
    return tuple(asks)


def _ask(chance: Random, prompt: tuple[int, ...], begins: float) -> Ask:
    new_tokens = chance.randint(4, 28)
    text = answer(chance, prompt, new_tokens + 1)
    if chance.random() < 0.3:
        text[chance.randrange(1, new_tokens) :] = [EOS]
    sampled = Sampling(temperature=1.0, seed=chance.randrange(2**20))
    return Ask(
        prompt,
        tuple(text),
        new_tokens,
        sampled if chance.random() < 0.4 else GREEDY,
        chance.choice(("gardener", "gardener", *POLICIES)),
        Bounds(chance.choice((None, 4)), chance.choice((None, 3)), floor=0.05),
        begins,
        chance.randrange(new_tokens) if chance.random() < 0.15 else None,
        chance.uniform(0.0, 6.0) if chance.random() < 0.15 else None,
    )


def _faults(chance: Random, stages: int, patience: float) -> tuple[Fault, ...]:
    count = chance.choices((1, 2, 3), (6, 3, 1))[0]
    faults = [_fault(chance, stages, patience, first=not at) for at in range(count)]
    if sum(each.kind in HOLDER_ENDS for each in faults) > 1:
        return _faults(chance, stages, patience)
    return tuple(faults)


def _fault(chance: Random, stages: int, patience: float, first: bool) -> Fault:
    kind = chance.choices(KINDS, [4 if each in CRASHES else 2 for each in KINDS])[0]
    where = 0
    if kind in ON_STAGES:
        where = chance.randint(1, stages)
    elif kind in ON_LINKS:
        where = chance.randint(0, stages)
    return Fault(kind, where, _seconds(chance, kind, patience), _when(chance, stages, first))


def _seconds(chance: Random, kind: str, patience: float) -> float:
    if kind in PARTINGS and patience < 10 and chance.random() < 0.3:
        return NEVER
    if kind in CUTS:
        return 0.0
    longest = {"spike": 2.0, "stall": 6.0, "pause": 6.0, "holder pause": 6.0}.get(kind, 3.0)
    return chance.choice((0.0, 1.0)) * chance.uniform(0.0, longest) + chance.uniform(0.001, 0.2)


def _when(chance: Random, stages: int, first: bool) -> When:
    what = chance.choices(("at", "send", "hear", "joining"), (2, 4, 2, 0 if first else 6))[0]
    if what == "at":
        return When(what, chance.uniform(0.0, 2.0))
    if what == "joining":
        return When(what, chance.choice((0.8, 2.0, 6.0)) * chance.random())
    return When(what, int(2 ** chance.uniform(0, 7)), chance.randint(0, stages))
