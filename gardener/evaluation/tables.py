"""The figures of an evaluation as tables for a wide or a narrow terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gardener.evaluation.repeats import RULE
from gardener.evaluation.tally import OVERALL
from gardener.holder.rates import REFERENCE

WIDE = 130
"""From this number of columns on, all figures are shown."""

NAMES, PAIR = 18, 11
"""The columns of a name, and of a mean with a median, in the tables of ratios."""

LANES = 8
"""The most stages that have a column each in the table of times."""

OURS = ("gardener", "alternating")
"""The first of these policies that ran is compared with the others; if none ran, the last policy
is."""

_Group: TypeAlias = tuple[str, Mapping[str, Any]]

KINDS = {"speedup": "decoding", "end_to_end_speedup": "end to end"}


def tables(
    rings: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Mapping[str, Any]],
    policies: Sequence[str],
    width: int,
) -> RenderableType:
    """For each ring what it is, the figures by data set, and where the time went."""
    parts: list[RenderableType] = []
    for name, sets in figures.items():
        if sets:
            groups, whole = list(_groups(sets)), _whole(sets)
            parts += ["", Text(name, "bold"), *_about(rings[name], whole, policies)]
            parts += _titled("tokens per second", _speeds(groups, policies, width))
            parts += _ratios(groups, whole, policies, width)
            title = "where the time after the first token goes, of all prompts"
            parts += _titled(title, _times(whole["policies"], policies, width))
    return Group(*parts)


def exactness_lines(rings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How exact the rings are: once, if that is the same for all, else by ring."""
    said = {name: ring["exactness"] for name, ring in rings.items() if ring["exactness"]}
    if len(set(said.values())) <= 1:
        return list(said.values())[:1]
    return [f"{name}: {sentence}" for name, sentence in said.items()]


def _titled(title: str, *tables: Table) -> list[RenderableType]:
    """The title as a line of its own: that of a table is no wider than the table."""
    return ["", Text(title, "italic"), *tables]


def _groups(sets: Mapping[str, Any]) -> Iterator[_Group]:
    """What has rows in the tables, with its title: the data sets, then all prompts, then those
    with answers that repeat themselves and those without."""
    for data, found in sets.items():
        yield f"{data} ({found['prompts']})", found
    whole = _whole(sets)
    if whole["repeating"]["prompts"]:
        for key, called in (("repeating", "repeating"), ("not_repeating", "not repeating")):
            if whole[key]["prompts"]:
                yield f"{called} ({whole[key]['prompts']})", whole[key]


def _whole(sets: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = sets.get(OVERALL) or next(iter(sets.values()))
    return found


def _about(
    ring: Mapping[str, Any], whole: Mapping[str, Any], policies: Sequence[str]
) -> Iterator[Text]:
    """Lines that say what was measured, and how the figures are meant."""
    yield Text(f"policies: {', '.join(policies)}")
    profile = f"; profile: {ring['profile']}" if ring["profile"] else ""
    yield Text(f"drafters: {ring['drafters']}{profile}")
    for what, fact in ring["facts"].items():
        yield Text(f"{what}: {fact}")
    yield Text(f"decoding: all tokens but the first, in the time after {_prefill(whole)}")
    if unrated := whole["prompts"] - whole["rated"]:
        yield Text(f"no decoding: {unrated} of {whole['prompts']} prompts, left out of its figures")
    again = whole["repeating"]["prompts"]
    count = "none" if not again else f"{again} of {whole['prompts']}"
    yield Text(f"repeating: {count} ({RULE})")


def _prefill(whole: Mapping[str, Any]) -> str:
    of, seconds = whole["prefill"]["of"], whole["prefill"]["seconds"]["mean"]
    took = f"{_number(seconds, 2)} s on average"
    if list(of) == [REFERENCE]:
        return f"the first one under {REFERENCE} ({took})"
    whose = ", ".join(f"{name}: {count}" for name, count in of.items())
    return f"the first one of the quickest policy there ({took}; {whose})"


# --- tables --------------------------------------------------------------------------------------


def _table(columns: Sequence[str]) -> Table:
    """An empty table. If it gets too wide, the names in the first column are folded."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        side: Literal["left", "right"] = "right" if number else "left"
        table.add_column(name, justify=side, no_wrap=bool(number), overflow="fold")
    return table


def _speeds(groups: Sequence[_Group], policies: Sequence[str], width: int) -> Table:
    wide = width >= WIDE
    columns = ["\nprompts", "decoding\nmean", "\nmedian", "end to end\nmean", "\nmedian"]
    columns += ["first\ntoken", "tokens/\ntick"]
    columns += ["rows/\nsegment", "accepted/\nsegment"] if wide else []
    columns += ["rows\nwasted"]
    table = _table(columns)
    for called, found in groups:
        table.add_row(Text(called, "bold"))
        for policy in policies:
            each = found["policies"][policy]
            row = [
                *_both(each["tokens_per_second"], 1),
                *_both(each["end_to_end"], 1),
                f"{_number(each['first_token'], 2)} s",
                _number(each["tokens_per_tick"], 2),
                _number(each["rows_per_segment"], 2),
                _number(each["accepted_per_segment"], 2),
                f"{each['wasted']:.0%}",
            ]
            table.add_row(f"  {policy}", *(row if wide else [*row[:6], row[-1]]))
    return table


def _ratios(
    groups: Sequence[_Group], whole: Mapping[str, Any], policies: Sequence[str], width: int
) -> Iterator[RenderableType]:
    """One policy against all others, by data set; then, for all prompts, each policy against those
    that are named before it."""
    if len(policies) < 2:
        return
    ours = next((name for name in OURS if name in policies), policies[-1])
    others = [name for name in policies if name != ours]
    rows = {called: (found["policies"][ours], others) for called, found in groups}
    title = f"{ours} against the others: mean/median of ratios by prompt (2: twice as fast)"
    yield from _titled(title, *_blocks("prompts", rows, others, width))
    if len(policies) > 2:
        rows = {
            name: (whole["policies"][name], list(policies[:at]))
            for at, name in enumerate(policies)
            if at
        }
        title = f"each policy against those before it, of all {whole['prompts']} prompts"
        yield from _titled(title, *_blocks("policy", rows, policies[:-1], width))


def _blocks(
    first: str,
    rows: Mapping[str, tuple[Mapping[str, Any], Sequence[str]]],
    others: Sequence[str],
    width: int,
) -> Iterator[Table]:
    """Decoding and end to end side by side, or in two tables if these are too wide. `rows`: the
    figures of a policy, and the names of the others that it is compared with."""
    fits = width >= NAMES + len(KINDS) * len(others) * PAIR
    sides = [tuple(KINDS)] if fits else [(kind,) for kind in KINDS]
    for kinds in sides:
        columns = [f"\n{first}"]
        for kind in kinds:
            columns += [f"{'' if at else KINDS[kind]}\n{name}" for at, name in enumerate(others)]
        table = _table(columns)
        for called, (figures, bases) in rows.items():
            cells = [
                _pair(figures[kind][name]) if name in bases else ""
                for kind in kinds
                for name in others
            ]
            table.add_row(called, *cells)
        yield table


def _times(whole: Mapping[str, Any], policies: Sequence[str], width: int) -> Table:
    """For each policy: the tick, the part of it in which each stage computes, what the stages do on
    average, and the part that passes after misses."""
    stages = max(len(whole[policy]["tick"]["machines"]) for policy in policies) - 1
    lanes = range(1, min(stages, LANES if width >= WIDE else 0) + 1)
    columns = ["\npolicy", "\ntick", "\ndrafter"]
    columns += [f"{'' if lane > 1 else 'computing'}\nstage {lane}" for lane in lanes]
    columns += ["all stages:\ncomputing", "\nlink", "\ndrafting", "\nwaiting", "after\nmisses"]
    table = _table(columns)
    for policy in policies:
        tick = whole[policy]["tick"]
        machines = tick["machines"]
        if not machines or tick["seconds"] is None:
            continue
        sums = [sum(m[part] for m in machines[1:]) / max(len(machines) - 1, 1) for part in _PARTS]
        table.add_row(
            policy,
            f"{tick['seconds'] * 1e3:.1f} ms",
            f"{machines[0]['drafting']:.0%}",
            *(f"{machines[k]['compute']:.0%}" for k in lanes),
            *(f"{each:.0%}" for each in sums),
            f"{tick['missed']:.0%}",
        )
    return table


_PARTS = ("compute", "link", "drafting", "waiting")


def _both(figures: Mapping[str, float | None], digits: int) -> tuple[str, str]:
    return _number(figures["mean"], digits), _number(figures["median"], digits)


def _pair(figures: Mapping[str, float | None]) -> str:
    return "-" if figures["mean"] is None else "/".join(_both(figures, 2))


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
