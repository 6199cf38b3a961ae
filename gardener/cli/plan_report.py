"""What `gardener plan` prints."""

import sys

from rich.console import Console
from rich.table import Table

from gardener.cluster.plan.machines import Drift, named
from gardener.cluster.plan.plan import BEST, CHANCE, NOW, SEEN, Plan, Rates, Share
from gardener.runtime.wording import bare_span, printable

WIDE = 120
"""Columns where there is no terminal."""

TIMED = (
    "as each stage has timed itself when it started; one whose machine was busy then should be "
    "started anew"
)

LEAST = 1e-3
"""Milliseconds below which nothing is said of a head: a profile has it in its layers."""


def report(plan: Plan) -> None:
    """Print all of it."""
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    console.print(_stages(plan))
    console.print(f"{TIMED}\n", markup=False, soft_wrap=True)
    _lines(console, "links, for a row", _links(plan))
    console.print(_speeds(plan))
    console.print()
    if plan.drift is not None:
        title = "when it was asked, passes took so many times as long as the stages had measured"
        _lines(console, title, _drift(plan, plan.drift))
    if plan.unsteady:
        console.print(f"{_warning(plan.unsteady)}\n", markup=False, soft_wrap=True)
    _lines(console, "what limits it, with these layers: twice as fast would be", _limits(plan))
    _lines(console, "left out, with its layers shared among the others at best", _left_out(plan))
    if plan.pays:
        title = "into the cluster file, or as --layers of gardener-node"
        _lines(console, title, _layers(plan))
    elif plan.changes:
        gain = _percent(plan.gain).strip()
        console.print(f"other layers would bring nothing that can be told ({gain}): leave them\n")
    else:
        console.print("the layers are balanced as they are\n")
    _lines(console, "what is taken for granted", [f"- {each}" for each in plan.assumed])


def _lines(console: Console, title: str, lines: list[str]) -> None:
    console.print(f"{title}:", markup=False)
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print()


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table


def _stages(plan: Plan) -> Table:
    """Who holds what, who should, and what a row alone takes there."""
    table = _table(
        "layers by measured speed and memory", "", "machine", "holds", "ms a token",
        "should hold", "ms a token", "ms a layer", "head, ms", "takes at most",
    )  # fmt: skip
    pairs = zip(plan.now.ring.stages, plan.best.ring.stages, strict=True)
    for number, (now, best) in enumerate(pairs, 1):
        table.add_row(
            named(number),
            printable(now.name),
            bare_span(now.first, now.end),
            figure(now.ms),
            bare_span(best.first, best.end),
            figure(best.ms),
            figure(now.layer_ms),
            figure(now.head_ms) if now.head_ms > LEAST else "-",
            f"{now.most} layers" if now.most else "not known",
        )
    return table


def _speeds(plan: Plan) -> Table:
    table = _table("tokens/s of decoding, one request", "", "plain", plan.policy)
    table.add_row("foretold as it is", *_rates(plan.rates[NOW]))
    if plan.changes:
        table.add_row("foretold with these layers", *_rates(plan.rates[BEST]))
    if plan.measured is not None:
        table.add_row("measured as it is", *_rates(plan.measured))
        for trial, what in ((NOW, "foretold"), (SEEN, "with what it took then,")):
            if off := plan.off(trial):
                table.add_row(f"{what} / measured", f"{off.plain:.2f}", f"{off.guessing:.2f}")
    return table


def _drift(plan: Plan, drift: Drift) -> list[str]:
    """What the run was like for the stages."""
    numbers = zip(plan.now.numbers, drift.levels, strict=True)
    return [
        *(f"{named(number)}  {level:.2f}" for number, level in numbers),
        f"and a round trip took {figure(max(1e3 * drift.beyond, 0))} ms beside passes and links",
    ]


def _links(plan: Plan) -> list[str]:
    links = plan.now.links()
    wide = max(len(name) for name, _ in links)
    return [f"{name:{wide}}  {figure(1e3 * seconds)} ms" for name, seconds in links]


def _rates(rates: Rates) -> tuple[str, ...]:
    return tuple(figure(rate, 2 if rate < 10 else 3) for rate in rates)


def figure(value: float, digits: int = 3) -> str:
    """With so many digits that say something, and no exponent: `5620`, `73`, `0.226`."""
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text else text


def _warning(unsteady: list[str]) -> str:
    one = len(unsteady) == 1
    return (
        f"WARNING: {' and '.join(unsteady)} took far other times than {'it' if one else 'they'} "
        f"had measured: start {'it' if one else 'them'} anew while nothing else runs there, and "
        "plan again"
    )


def _limits(plan: Plan) -> list[str]:
    wide = max(len(share.part) for share in plan.limits)
    return [f"{share.part:{wide}}  {_gains(plan, share)}" for share in plan.limits]


def _gains(plan: Plan, share: Share) -> str:
    return f"{plan.policy} {_percent(share.guessing)}, plain {_percent(share.plain)}"


def _percent(factor: float) -> str:
    return f"{round(100 * (factor - 1)):+3d} %"


def _left_out(plan: Plan) -> list[str]:
    found = [f"{share.part}  {_gains(plan, share)}{_verdict(share)}" for share in plan.left_out]
    needed = plan.trials.impossible.items()
    return [*found, *(f"{part}  cannot be left out: {why}" for part, why in needed)]


def _verdict(share: Share) -> str:
    if share.guessing >= CHANCE:
        return ": it makes the ring slower"
    if share.guessing > 2 - CHANCE:
        return ": it makes no difference"
    return ""


def _layers(plan: Plan) -> list[str]:
    stages = enumerate(plan.best.ring.stages, 1)
    return [
        line
        for number, each in stages
        for line in (f"[stage.{number}]", f'layers = "{bare_span(each.first, each.end)}"')
    ]
