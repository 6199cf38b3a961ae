"""How fast could any policy be with this drafter and these costs? A policy that knows the text.

It has the drafters look only at true nodes, the deepest first, and sends only true nodes that they
did propose: the root, and the chain below it as far as it is known. Nothing that it drafts or sends
is wasted. Where the next token is not among the guesses, that is a miss for it, too. After a miss
it sends the root at once, or waits until so many levels below it are known (`--levels`), if the
drafter gets so far. All of these run, and the one with the best mean counts, for each ring and data
set. Its segments leave just in time, as those of `gardener` (which beats sending each node as soon
as it is known: these meet at stage 1, but part again behind it).

It is an upper bound in so far as nobody can know better which guess is right: no row and no call of
a drafter is spent on another one, so segments are as small, and drafting is as deep, as can be.

It is none in so far as its own timing is not the best. It looks at each node as soon as it can,
while the features of the tokens before it are still on the way; later the drafter may guess better.
And it does not choose anew after each miss, nor when each segment leaves, for which it would have
to know how long the chain will become.

Run from the checkout: `python -m benchmarks.bound --data FILE ... [--simulate 1,2,4,8,16]
[--profile jetson-7b,gpu,cpu] [--json]`.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.simulated import FULL, Figures, Variant, by_data, figures, parser, report
from gardener.costs import Costs
from gardener.evaluation.tally import Run
from gardener.holder import Holder
from gardener.policy import View
from gardener.policy.view import ids
from gardener.simulate.library import Library
from gardener.tree import Node

LEVELS = (0, 1, 2, 3, 4, 6, 9)


@dataclass(slots=True)
class Clairvoyant:
    """See above. One object for one answer in `holder`, which is written in `library`."""

    holder: Holder
    library: Library
    levels: int  # that are waited for
    paced: bool = True
    throttled: bool = False
    name: str = "clairvoyant"

    def window(self, costs: Costs) -> int:
        return len(costs.stages) + 1

    def choose(self, view: View) -> list[int]:
        chain = self._chain(view)
        if view.urgent and view.growing and len(chain) <= min(self.levels, view.reach - 1):
            return []
        return [node for node in ids(chain) if node not in view.sent]

    def grow(self, view: View) -> list[int]:
        chain = self._chain(view)
        deepest = chain[-1].id
        if len(chain) >= view.reach or deepest in view.expanded:
            return []
        # Another one is being asked: those that answer at once go first, and may get deeper.
        return [] if view.growing and not view.instant else [deepest]

    def _chain(self, view: View) -> list[Node]:
        """The root and the true nodes below it that may still be emitted."""
        decoding = self.holder.decoding
        assert decoding is not None
        recording = self.library.get(decoding.prompt)
        assert recording is not None
        at = recording.prompt + decoding.counts.emitted
        chain = [view.tree[view.tree.root]]
        for token in recording.tokens[at : at + view.reach - 1]:
            child = view.tree.child(chain[-1].id, token)
            if child is None:
                break
            chain.append(child)
        return chain


def variant(levels: int) -> Variant:
    """A bound that waits for so many levels."""
    return Variant(f"{levels} levels", lambda holder, library: Clairvoyant(holder, library, levels))


def judge(runs: Sequence[Run]) -> dict[str, dict[str, Figures]]:
    """Of each data set: what each way of waiting brings, and `gardener`, all against the best
    bound."""
    found: dict[str, dict[str, Figures]] = {}
    for data, speeds in by_data(runs).items():
        bounds = {name: speed for name, speed in speeds.items() if name != FULL.name and speed}
        if bounds:
            best = max(bounds.values(), key=lambda speed: statistics.fmean(speed.values()))
            each = {name: figures(speed, best) for name, speed in speeds.items()}
            found[data] = {name: of for name, of in each.items() if of is not None}
    return found


def show(ring: str, sets: dict[str, dict[str, Figures]]) -> None:
    """A table."""
    heads = f"{'gardener':>10}{'bound':>9}{'ratio':>8}{'worst':>8}"
    print(f"\n{ring}\n{'prompts':14}{heads}  the bound is")
    for data, named in sets.items():
        mine = named[FULL.name]
        bounds = {name: each for name, each in named.items() if name != FULL.name}
        best = max(bounds, key=lambda name: bounds[name].tokens_per_second)
        print(
            f"{data:14}{mine.tokens_per_second:10.2f}{bounds[best].tokens_per_second:9.2f}"
            f"{mine.ratio:8.1%}{mine.worst:8.1%}  waiting for {best}"
        )


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--levels", type=int, nargs="+", default=LEVELS)
    arguments = options.parse_args()
    report(arguments, [FULL, *map(variant, arguments.levels)], judge, show)


if __name__ == "__main__":
    main()
