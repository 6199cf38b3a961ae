"""Faults at random: a seed and a number give the same one again, whatever went before."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.faults.holders import Question

KINDS = ("kill", "stop", "cut", "holder")
WEIGHTS = {"kill": 6, "stop": 2, "cut": 4, "holder": 1}
"""How often each comes, where all are wanted."""

WAYS = ("drop", "reset", "stall", "slow")
STOPS = (3.0, 10.0)
STALLS = (2.0, 8.0)
"""Seconds: below the silence after which a link is lost, and above."""

RESTART = 5.0
"""Most seconds until what was killed is started again."""

LATEST = 0.7
"""Of an answer: what is later hits too little of it."""

JOINS = 1.5
"""Most seconds from the end of a fault to one that comes while the ring closes again."""

JOINING, TOGETHER = "joining", "together"
MOMENTS = ("prefill", "prefill", "decoding", "decoding", JOINING, JOINING, TOGETHER)

POLICIES = ("gardener", "plain", "serial", "chunked", "pipedec", "flowspec", "alternating")
DEFAULT_POLICY, ACCOMPANIED = 0.7, 0.2
"""How often the policy is the default one, and another question is asked beside this one."""

PROMPTS = (
    "Write a story about a gardener who teaches a robot to grow tomatoes.",
    "Repeat this many times: a rose is a rose is a rose is a rose.",
    " ".join(
        f"Bed {bed} has {3 * bed} rows of {crop}, which are watered on day {bed % 7}."
        for bed, crop in enumerate(("beans", "leeks", "beets", "kale", "peas") * 6, 1)
    )
    + " Summarise these notes.",
)
"""The last one takes several segments, so that the prompt itself is under way for a while."""

TEMPERATURES = (0.0, 1.0)
SEED = 11
"""Of answers at a temperature."""


@dataclass(frozen=True)
class Blow:
    """One thing that goes wrong.

    kind   kill: a stage is killed and started again after `seconds`; stop: a process stands still
           for so long; cut: something happens to a cable; holder: it is killed
    place  the stage (0: the holder), or the number of the cable
    way    of a cut: drop, reset, stall for `seconds`, or slow for `seconds`
    """

    kind: str
    place: int
    seconds: float = 0.0
    way: str = ""

    def __str__(self) -> str:
        where = f"stage {self.place}" if self.place else "the holder"
        match self.kind:
            case "cut":
                lasting = f" for {self.seconds:g} s" if self.seconds else ""
                return f"cable {self.place} {self.way}{lasting}"
            case "kill":
                return f"kill {where}, start it after {self.seconds:.1f} s"
            case "stop":
                return f"stop {where} for {self.seconds:g} s"
        return "kill the holder"

    @property
    def label(self) -> str:
        """What it is counted under."""
        if self.kind == "cut":
            return f"cut: {self.way}" + (f" {self.seconds:g} s" if self.way == "stall" else "")
        if self.kind == "stop":
            return f"stop {self.seconds:g} s"
        return self.kind


@dataclass(frozen=True)
class Fault:
    """What is asked, and what goes wrong meanwhile.

    moment  prefill, decoding, joining: then `again` strikes `gap` seconds after the first blow is
            over, while the ring closes again; or together: then it strikes with the first one
    share   how far prefill is, or the answer, when the first blow strikes
    beside  another question that is asked at the same time
    """

    number: int
    question: Question
    blow: Blow
    moment: str
    share: float
    again: Blow | None = None
    gap: float = 0.0
    beside: Question | None = None

    def __str__(self) -> str:
        later = "with it" if self.moment == TOGETHER else f"{self.gap:.2f} s later"
        then = "" if self.again is None else f", {later} {self.again}"
        beside = ", two questions" if self.beside else ""
        when = f"{self.moment} at {100 * self.share:.0f} %"
        return (
            f"{self.blow}{then}; {when}; temperature {self.question.temperature:g}, "
            f"{self.question.policy or 'default'}{beside}"
        )


def questions(tokens: int) -> list[Question]:
    """All that are asked, under the policy that never guesses."""
    return [
        Question(prompt, tokens, temperature, SEED, "plain")
        for prompt in PROMPTS
        for temperature in TEMPERATURES
    ]


def draw(seed: int, number: int, stages: int, tokens: int, kinds: Sequence[str]) -> Fault:
    """Fault `number` of this seed. Stages are killed in turn."""
    chance = random.Random(f"{seed}-{number}")
    blow = _blow(chance, stages, kinds, number % stages + 1)
    moment = "decoding" if blow.kind == "holder" else chance.choice(MOMENTS)
    again = None
    if moment in (JOINING, TOGETHER):
        again = _blow(chance, stages, [k for k in kinds if k != "holder"] or ["kill"])
        if (again.kind, again.place) == (blow.kind, blow.place):  # once is enough
            again = replace(again, place=again.place % stages + 1)
    return Fault(
        number,
        _question(chance, tokens),
        blow,
        moment,
        chance.uniform(0.0, 1.0 if moment == "prefill" else LATEST),
        again,
        chance.uniform(0.0, JOINS),
        _question(chance, tokens) if chance.random() < ACCOMPANIED else None,
    )


def _question(chance: random.Random, tokens: int) -> Question:
    policy = None if chance.random() < DEFAULT_POLICY else chance.choice(POLICIES)
    prompt, temperature = chance.choice(PROMPTS), chance.choice(TEMPERATURES)
    return Question(prompt, tokens, temperature, SEED, policy)


def _blow(
    chance: random.Random, stages: int, kinds: Sequence[str], victim: int | None = None
) -> Blow:
    kind = chance.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
    victim = victim or chance.randint(1, stages)
    match kind:
        case "kill":
            return Blow(kind, victim, chance.uniform(0.0, RESTART))
        case "stop":
            return Blow(kind, chance.randint(0, stages), chance.choice(STOPS))
        case "cut":
            way = chance.choice(WAYS)
            seconds = {"stall": chance.choice(STALLS), "slow": 3.0}.get(way, 0.0)
            return Blow(kind, chance.randint(0, stages), seconds, way)
    return Blow(kind, 0)
