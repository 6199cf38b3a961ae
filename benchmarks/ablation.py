"""What each part of the policy `gardener` brings: the whole, and the whole without each part.

    always-root-first  the root never waits for the drafter
    never-root-first   the root always waits until the drafter has looked at it
    fixed-rows         segments of up to 16 rows, whatever rows cost: sizes are chosen as if any
                       number of rows took as long as 16 do
    no-early-drop      an Advance does not overtake segments: stages compute dead rows and pass them
                       on until the segments that were sent before it have gone through
    not-just-in-time   segments leave at once, as many as the window allows, and wait at stage 1
    never-plain        speculation goes on where it was seen not to pay
    no-ngram           the other drafters alone
    no-calibration     the drafters' probabilities without the map and without anything learned from
                       verified nodes, in the n-gram drafter too, which keeps its first estimates
    map-alone          the map that was fitted offline, and nothing learned after that

Each variant is compared with the whole in the same run, in a ring of its own with the same jitter.

Run from the checkout: `python -m benchmarks.ablation --data FILE ... [--simulate 4]
[--profile jetson-7b,gpu,cpu] [--without PART ...] [--json]`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.simulated import FULL, Speeds, Variant, by_data, figures, parser, report
from gardener.decoding.costs import Costs
from gardener.decoding.curves import Curve
from gardener.decoding.policy import Bounds, Gardener, Policy, View
from gardener.draft import ngram
from gardener.draft.calibration import Calibration, Floats
from gardener.draft.drafter import Drafter
from gardener.draft.incremental import Incremental
from gardener.draft.ngram import NGram
from gardener.evaluation.tally import MeasuredRun
from gardener.net.link import Link
from gardener.protocol.messages import Advance, Close, Message, Segment, Verdict
from gardener.stages.node import StageNode

ROWS = 16
"""Rows of a segment whose size does not follow from the costs."""


# --- the policy ----------------------------------------------------------------------------------


@dataclass(slots=True)
class RootLast(Gardener):
    """The root waits for the first call of the drafter about it, and for a call under way before
    that. It gives up like any root: when it is overdue."""

    _asked: int = field(init=False, default=-1)  # the root that a drafter was asked about

    def choose(self, view: View) -> list[int]:
        root = view.tree.root
        if view.urgent and view.growing and not view.overdue:
            if root in view.growing:
                self._asked = root
            if root in view.growing or self._asked != root:
                return []
        return Gardener.choose(self, view)


@dataclass(slots=True)
class FixedRows(Gardener):
    """Believes that segments of all sizes take the time of one with 16 rows."""

    def choose(self, view: View) -> list[int]:
        return Gardener.choose(self, replace(view, costs=Flat(view.costs)))

    def grow(self, view: View) -> list[int]:
        return Gardener.grow(self, replace(view, costs=Flat(view.costs)))


class Flat(Costs):
    """The same costs, but for stages that take as long as for 16 rows, whatever the rows."""

    def __init__(self, real: Costs) -> None:
        self._begin(real._known, real.context)

    @property
    def stages(self) -> list[Curve]:
        return [Curve(((1, curve(ROWS)),)) for curve in super().stages]


# --- the stages ----------------------------------------------------------------------------------


class Orderly(StageNode):
    """Here an Advance takes effect, and is passed on, behind the segments that came before it."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._held: deque[tuple[tuple[int, int], Link, Advance]] = deque()

    def heard(self, link: Link, message: Message) -> None:
        if isinstance(message, Advance) and self.scheduler.waiting:
            self._held.append((self.scheduler.latest, link, message))
            return
        if isinstance(message, Close):
            self._held.clear()  # one request at a time: they are of this one
        super().heard(link, message)

    def _pass_on(self, message: Segment | Verdict) -> None:
        super()._pass_on(message)
        while self._held and self._held[0][0] <= (message.request, message.seq):
            super().heard(*self._held.popleft()[1:])


# --- the drafters --------------------------------------------------------------------------------


class Unlearning(Calibration):
    """The map, which is not corrected by what is verified."""

    def observe(self, chance: Floats, depth: int, hit: int | None) -> None:
        """Learn nothing from verified guesses."""


class FirstEstimates(ngram.HitRates):
    """The same for the n-gram drafter."""

    def observe(self, kind: ngram.Kind, hit: bool) -> None:
        """Learn nothing from verified guesses."""


def unlearning(identity: bool) -> Callable[[Sequence[Drafter]], Sequence[Drafter]]:
    """Drafters that learn nothing while they draft; with `identity`, without the map either."""

    def change(found: Sequence[Drafter]) -> Sequence[Drafter]:
        for drafter in found:
            if isinstance(drafter, Incremental):
                weights = drafter.calibration.weights
                drafter.calibration = Unlearning() if identity else Unlearning(weights)
            elif isinstance(drafter, NGram):
                drafter.hit_rates = FirstEstimates()
        return found

    return change


def without_ngram(found: Sequence[Drafter]) -> Sequence[Drafter]:
    return [drafter for drafter in found if not isinstance(drafter, NGram)]


# --- all of it -----------------------------------------------------------------------------------


def changed(name: str, make: Callable[[], Policy]) -> Variant:
    """Another policy."""
    return Variant(name, lambda holder, library: make())


PARTS = (
    changed("always-root-first", lambda: Gardener(Bounds(), waits=False)),
    changed("never-root-first", lambda: RootLast(Bounds())),
    changed("fixed-rows", lambda: FixedRows(Bounds(rows=ROWS))),
    Variant("no-early-drop", node=Orderly),
    changed("not-just-in-time", lambda: Gardener(Bounds(), paced=False)),
    changed("never-plain", lambda: Gardener(Bounds(), throttled=False)),
    Variant("no-ngram", drafters=without_ngram),
    Variant("no-calibration", drafters=unlearning(identity=True)),
    Variant("map-alone", drafters=unlearning(identity=False)),
)


def judge(runs: Sequence[MeasuredRun]) -> dict[str, dict[str, Speeds]]:
    """For each data set: every variant against the whole."""
    found: dict[str, dict[str, Speeds]] = {}
    for data, speeds in by_data(runs).items():
        each = {name: figures(speed, speeds[FULL.name]) for name, speed in speeds.items()}
        found[data] = {name: of for name, of in each.items() if of is not None}
    return found


def show(ring: str, sets: dict[str, dict[str, Speeds]]) -> None:
    """Two tables: tokens per second, and these against the whole."""
    names = list(dict.fromkeys(name for named in sets.values() for name in named))
    heads = "".join(f"{data:>11}" for data in sets)
    print(f"\n{ring}\n{'tokens/s':20}{heads}    {'against all of it':20}{heads}")
    for name in names:
        each = [named[name] for named in sets.values()]
        speeds = "".join(f"{of.tokens_per_second:11.2f}" for of in each)
        ratios = "".join(f"{of.ratio:11.1%}" for of in each)
        print(f"{name:20}{speeds}    {name:20}{ratios}")


def main() -> None:
    options = parser(__doc__ or "")
    names = [part.name for part in PARTS]
    options.add_argument("--without", nargs="+", choices=names, default=names, metavar="PART")
    arguments = options.parse_args()
    chosen = [part for part in PARTS if part.name in arguments.without]
    report(arguments, [FULL, *chosen], judge, show)


if __name__ == "__main__":
    main()
