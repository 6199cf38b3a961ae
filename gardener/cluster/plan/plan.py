"""A plan: what is to be tried of a ring, and what follows from the speeds that it would have.

What the speeds are, somebody else finds out (`rings/simulate/foretell.py` does): `Trials` says of
which rings they are wanted, and `Plan` makes sense of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from msgspec import to_builtins

from gardener.cluster.plan.machines import Machines, named
from gardener.errors import UserError
from gardener.runtime.wording import bare_span

CHANCE = 1.02
"""A ring that is faster by less than this factor is as fast: guesses may fall otherwise."""


class Trial(NamedTuple):
    """A ring that is tried: as it is, at best, or at best without one stage, or with one part twice
    as fast."""

    kind: Literal["now", "best", "without", "faster"]
    part: str = ""


class Rates(NamedTuple):
    """Tokens per second of decoding: without guesses, and with them."""

    plain: float
    guessing: float


NOW, BEST = Trial("now"), Trial("best")


@dataclass(frozen=True)
class Trials:
    """The rings to be tried; `impossible`: the stages that the others cannot do without, and why
    not."""

    rings: Mapping[Trial, Machines]
    impossible: Mapping[str, str]

    @classmethod
    def of(cls, now: Machines) -> "Trials":
        """All that a plan needs of a ring. Raises UserError if the memory of its stages does not
        take the model."""
        best = now.best()
        rings = {NOW: now, BEST: best}
        impossible = {}
        for number in now.numbers:
            try:
                rings[Trial("without", named(number))] = now.without(number)
            except UserError as error:
                impossible[named(number)] = str(error)
        rings |= {Trial("faster", part): best.faster(part) for part in best.parts}
        return cls(rings, impossible)


class Share(NamedTuple):
    """What a part is to a ring: by which factors it would be faster, plain and with guesses, if
    this part were twice as fast, or left out."""

    part: str
    plain: float
    guessing: float


@dataclass(frozen=True)
class Plan:
    """What was found. `rates`: of all trials. `measured`: what the ring did when it was asked;
    None: it was not. `assumed`: what is taken for granted, in sentences."""

    trials: Trials
    rates: Mapping[Trial, Rates]
    policy: str
    assumed: tuple[str, ...] = ()
    measured: Rates | None = None
    facts_of_run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def now(self) -> Machines:
        """The ring as it is."""
        return self.trials.rings[NOW]

    @property
    def best(self) -> Machines:
        """The same machines, with the layers as they should be."""
        return self.trials.rings[BEST]

    @property
    def changes(self) -> bool:
        """Whether any stage should hold other layers."""
        return self.now.ring != self.best.ring

    @property
    def limits(self) -> list[Share]:
        """The parts of the ring at best, the one first whose speed brings most with guesses."""
        return self._shares("faster")

    @property
    def left_out(self) -> list[Share]:
        """The stages that could be left out, the one first without which the ring is fastest."""
        return self._shares("without")

    @property
    def slowing(self) -> list[str]:
        """The stages without which the ring would be faster, the worst one first."""
        return [share.part for share in self.left_out if share.guessing >= CHANCE]

    @property
    def off(self) -> Rates | None:
        """Foretold of the ring as it is, as a factor of what was measured."""
        if self.measured is None:
            return None
        told = self.rates[NOW]
        return Rates(told.plain / self.measured.plain, told.guessing / self.measured.guessing)

    def _shares(self, kind: str) -> list[Share]:
        base = self.rates[BEST]
        shares = [
            Share(trial.part, rates.plain / base.plain, rates.guessing / base.guessing)
            for trial, rates in self.rates.items()
            if trial.kind == kind
        ]
        return sorted(shares, key=lambda share: -share.guessing)

    def facts(self) -> dict[str, Any]:
        """For `--json`: plain values."""
        ring = self.now.ring
        return {
            "measured_ring": to_builtins(ring),
            "layers": [bare_span(each.first, each.end) for each in self.best.ring.stages],
            "stage_ms": {name: _ms(each) for name, each in self._both()},
            "policy": self.policy,
            "tokens_per_second": {
                name: self.rates[trial]._asdict() for name, trial in (("now", NOW), ("best", BEST))
            },
            "twice_as_fast": [share._asdict() for share in self.limits],
            "without": [share._asdict() for share in self.left_out],
            "needed": dict(self.trials.impossible),
            "slowing": self.slowing,
            "measured": self.measured and self.measured._asdict(),
            "foretold_to_measured": self.off and self.off._asdict(),
            "asked": dict(self.facts_of_run),
            "assumed": list(self.assumed),
        }

    def _both(self) -> tuple[tuple[str, Machines], ...]:
        return ("now", self.now), ("best", self.best)


def _ms(machines: Machines) -> list[float]:
    return [stage.ms for stage in machines.ring.stages]
