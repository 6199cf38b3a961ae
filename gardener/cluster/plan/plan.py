"""A plan: what is to be tried of a ring, and what follows from the speeds that it would have.

What the speeds are, somebody else finds out (`rings/simulate/foretell.py` does): `Trials` says of
which rings they are wanted, and `Plan` makes sense of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from msgspec import to_builtins

from gardener.cluster.plan.machines import Drift, Machines, named
from gardener.errors import UserError
from gardener.runtime.wording import bare_span

CHANCE = 1.05
"""A ring that is faster by less than this factor is as fast: guesses fall otherwise."""

STEADY = (0.7, 1.4)
"""Between these factors a stage at work takes what it has measured. A machine that was as busy when
it measured as it is at work stays within them."""


class Trial(NamedTuple):
    """A ring that is tried: as it is; as it is with the times that it was seen to take; at best; at
    best without one stage, or with one part twice as fast."""

    kind: Literal["now", "seen", "best", "without", "faster"]
    part: str = ""


class Rates(NamedTuple):
    """Tokens per second of decoding: without guesses, and with them."""

    plain: float
    guessing: float


NOW, SEEN, BEST = Trial("now"), Trial("seen"), Trial("best")


@dataclass(frozen=True)
class Trials:
    """The rings to be tried; `impossible`: the stages that the others cannot do without, and why
    not."""

    rings: Mapping[Trial, Machines]
    impossible: Mapping[str, str]

    @classmethod
    def of(cls, now: Machines, drift: Drift | None = None) -> "Trials":
        """All that a plan needs of a ring. `drift`: what it was seen to take, if it was asked.
        Raises UserError if the memory of its stages does not take the model."""
        best = now.best()
        rings = {NOW: now, BEST: best}
        if drift:
            rings[SEEN] = now.seen(drift)
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
    """What was found. `rates`: of all trials. `assumed`: what is taken for granted, in sentences.
    `measured`: what the ring did when it was asked, and `drift`, what was seen then; None: it was
    not asked."""

    trials: Trials
    rates: Mapping[Trial, Rates]
    policy: str
    assumed: tuple[str, ...] = ()
    measured: Rates | None = None
    drift: Drift | None = None

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
    def gain(self) -> float:
        """By which factor the ring would be faster with these layers, with guesses."""
        return self.rates[BEST].guessing / self.rates[NOW].guessing

    @property
    def pays(self) -> bool:
        """Whether other layers would bring something that can be told from chance."""
        return self.changes and self.gain >= CHANCE

    @property
    def unsteady(self) -> list[str]:
        """The stages that took other times, when they were asked, than they had measured."""
        if self.drift is None:
            return []
        least, most = STEADY
        pairs = zip(self.now.numbers, self.drift.levels, strict=True)
        return [named(number) for number, level in pairs if not least <= level <= most]

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

    def off(self, trial: Trial) -> Rates | None:
        """What was foretold of a ring, as a factor of what was measured."""
        if self.measured is None or trial not in self.rates:
            return None
        told = self.rates[trial]
        return Rates(told.plain / self.measured.plain, told.guessing / self.measured.guessing)

    def _shares(self, kind: str) -> list[Share]:
        base = self.rates[BEST]
        shares = [
            Share(trial.part, rates.plain / base.plain, rates.guessing / base.guessing)
            for trial, rates in self.rates.items()
            if trial.kind == kind
        ]
        return sorted(shares, key=lambda share: -share.guessing)

    def _told(self) -> list[tuple[str, Trial]]:
        return [(trial.kind, trial) for trial in (NOW, SEEN, BEST) if trial in self.rates]

    def facts(self) -> dict[str, Any]:
        """For `--json`: plain values."""
        both = (("now", self.now), ("best", self.best))
        return {
            "measured": True,  # as opposed to what a file alone tells, see `cli/plan_file.py`
            "measured_ring": to_builtins(self.now.ring),
            "layers": [bare_span(each.first, each.end) for each in self.best.ring.stages],
            "stage_ms": {name: [stage.ms for stage in each.ring.stages] for name, each in both},
            "link_ms": {name: 1e3 * seconds for name, seconds in self.now.links()},
            "policy": self.policy,
            "foretold": {name: self.rates[trial]._asdict() for name, trial in self._told()},
            "pays": self.pays,
            "run": self.measured and self.measured._asdict(),
            "foretold_to_run": {
                name: off._asdict() for name, trial in self._told() if (off := self.off(trial))
            },
            "drift": self.drift and asdict(self.drift),
            "unsteady": self.unsteady,
            "twice_as_fast": [share._asdict() for share in self.limits],
            "without": [share._asdict() for share in self.left_out],
            "needed": dict(self.trials.impossible),
            "slowing": self.slowing,
            "assumed": list(self.assumed),
        }
