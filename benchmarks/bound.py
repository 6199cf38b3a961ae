"""Bounds of what any policy could reach with this drafter and these costs: two policies that know
more than a real one can.

`sent` (the default): a policy that knows which of its rows are accepted as soon as it has sent
them, and not only when the verdict comes. Before it sends them it has only the calibrated
probabilities, as any other policy. But it never drafts or sends below a guess that has failed, and
never stops below one that has not. Otherwise it does what `gardener` does, with sizes from the
costs or with fixed ones, at once or when the drafter is ready; the variant with the best mean
counts. `gardener` falls short of it by the price of the round trip, which a policy can reduce but
not avoid.

`text`: a policy that knows the whole text. It lets the drafters expand only true nodes, the deepest
first, and sends only true nodes that they have proposed: the root, and the chain below it. Nothing
that it drafts or sends is wasted. After a miss it sends the root at once, or waits until a number
of levels below it is known (`--levels`), if the drafter gets that far; the variant with the best
mean counts. Its segments leave just in time, as those of `gardener` do.

Both are upper bounds, because no policy can know more; that of `text` is the looser one, since it
needs no breadth. But their timing is not the best one: neither of them decides after each miss how
long to wait, or delays drafting for features that are on the way.

Run from the checkout: `python -m benchmarks.bound [--knows text] --data FILE ...
[--simulate 1,2,4,8,16] [--profile jetson-7b,gpu,cpu] [--json]`.
"""

import math
import statistics
from collections.abc import Sequence, Set
from dataclasses import dataclass, fields

from benchmarks.simulated import FULL, Speeds, Variant, by_data, figures, parser, report
from gardener.decoding.costs import Costs
from gardener.decoding.policy import Bounds, Gardener, View
from gardener.decoding.policy.view import ids
from gardener.decoding.tree import Node
from gardener.evaluation.tally import MeasuredRun
from gardener.holder.holder import Holder
from gardener.rings.simulate.library import Library

LEVELS = (0, 1, 2, 3, 4, 6, 9)
ROWS = (None, 8, 16, 32)


def true_chain(view: View, holder: Holder, library: Library) -> list[Node]:
    """The root and the true nodes below it that stand in the tree and may still be emitted."""
    assert holder.session is not None
    speculation = holder.session.speculation
    recording = library.get(speculation.prompt)
    assert recording is not None
    at = recording.prompt + speculation.counts.emitted
    chain = [view.tree[view.tree.root]]
    for token in recording.tokens[at : at + view.reach - 1]:
        child = view.tree.child(chain[-1].id, token)
        if child is None:
            break
        chain.append(child)
    return chain


@dataclass
class Heard(View):
    """What is left to be looked at once it is known which of the sent nodes are right.

    alive: the deepest sent node that is right, and what may still come true below it. score: the
    logarithm of the probability that these have between them.
    """

    alive: Set[int] = frozenset()
    score: float = 0.0

    @classmethod
    def of(cls, view: View, chain: Sequence[Node]) -> "Heard":
        """`chain`: the root and the true nodes below it."""
        sent = [node for node in chain if node.id in view.sent]
        last = sent[-1] if sent else chain[0]
        alive, failed = {last.id}, 0.0
        for node in view.tree:  # parents stand before their children
            if node.parent in alive and node.id not in view.sent:
                alive.add(node.id)
            elif node.parent == last.id:
                failed += math.exp(node.score - last.score)
        left = last.score + math.log(max(1.0 - failed, 1e-3))
        seen = {field.name: getattr(view, field.name) for field in fields(View)}
        return cls(**seen, alive=alive, score=left)

    @property
    def top(self) -> float:
        return self.score

    def likeliest(self, floor: float) -> Sequence[Node]:
        return [node for node in View.likeliest(self, floor) if node.id in self.alive]


@dataclass(slots=True)
class Informed(Gardener):
    """Knows which of the rows that it has sent are right. One object for one answer in `holder`,
    which is written in `library`."""

    holder: Holder | None = None
    library: Library | None = None

    def choose(self, view: View) -> list[int]:
        return Gardener.choose(self, self._heard(view))

    def grow(self, view: View) -> list[int]:
        return Gardener.grow(self, self._heard(view))

    def _heard(self, view: View) -> Heard:
        assert self.holder is not None
        assert self.library is not None
        return Heard.of(view, true_chain(view, self.holder, self.library))


@dataclass(slots=True)
class Clairvoyant:
    """Knows the text. One object for one answer in `holder`, which is written in `library`."""

    holder: Holder
    library: Library
    levels: int  # that are waited for
    paced: bool = True
    throttled: bool = False
    name: str = "clairvoyant"

    def window(self, costs: Costs) -> int:
        return costs.count + 1

    def choose(self, view: View) -> list[int]:
        chain = true_chain(view, self.holder, self.library)
        if view.urgent and view.growing and len(chain) <= min(self.levels, view.reach - 1):
            return []
        return [node for node in ids(chain) if node not in view.sent]

    def grow(self, view: View) -> list[int]:
        chain = true_chain(view, self.holder, self.library)
        deepest = chain[-1].id
        if len(chain) >= view.reach or deepest in view.expanded:
            return []
        # Another one is being asked: those that answer at once go first, and may get deeper.
        return [] if view.growing and not view.instant else [deepest]


def knows_text(levels: int) -> Variant:
    """A bound that waits for this number of levels."""
    return Variant(
        f"waiting for {levels} levels",
        lambda holder, library: Clairvoyant(holder, library, levels),
    )


def knows_sent(rows: int | None, waits: bool) -> Variant:
    """A bound with at most this number of rows in a segment, or with what the costs say."""
    shape = Bounds(rows=rows)
    return Variant(
        f"{f'at most {rows}' if rows else 'measured'} rows, {'waiting' if waits else 'at once'}",
        lambda holder, library: Informed(
            shape, waits=waits, throttled=False, holder=holder, library=library
        ),
    )


def judge(runs: Sequence[MeasuredRun]) -> dict[str, dict[str, Speeds]]:
    """For each data set: `gardener` and all variants of the bound, against the best of these."""
    found: dict[str, dict[str, Speeds]] = {}
    for data, speeds in by_data(runs).items():
        bounds = {name: speed for name, speed in speeds.items() if name != FULL.name and speed}
        if bounds:
            best = max(bounds.values(), key=lambda speed: statistics.fmean(speed.values()))
            each = {name: figures(speed, best) for name, speed in speeds.items()}
            found[data] = {name: of for name, of in each.items() if of is not None}
    return found


def show(ring: str, sets: dict[str, dict[str, Speeds]]) -> None:
    """A table."""
    heads = f"{'gardener':>10}{'bound':>9}{'ratio':>8}{'worst':>8}"
    print(f"\n{ring}\n{'prompts':14}{heads}  the bound is")
    for data, named in sets.items():
        mine = named[FULL.name]
        bounds = {name: each for name, each in named.items() if name != FULL.name}
        best = max(bounds, key=lambda name: bounds[name].tokens_per_second)
        print(
            f"{data:14}{mine.tokens_per_second:10.2f}{bounds[best].tokens_per_second:9.2f}"
            f"{mine.ratio:8.1%}{mine.worst:8.1%}  {best}"
        )


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--knows", choices=("sent", "text"), default="sent")
    options.add_argument("--rows", type=int, nargs="+", default=ROWS, help="most in a segment")
    options.add_argument("--levels", type=int, nargs="+", default=LEVELS)
    arguments = options.parse_args()
    if arguments.knows == "text":
        bounds = [knows_text(levels) for levels in arguments.levels]
    else:
        bounds = [knows_sent(rows, waits) for rows in arguments.rows for waits in (True, False)]
    report(arguments, [FULL, *bounds], judge, show)


if __name__ == "__main__":
    main()
