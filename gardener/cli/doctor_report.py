"""What `gardener doctor` has found, for people and as JSON."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gardener.cluster.doctor.finding import Finding, Severity, well
from gardener.cluster.doctor.machines import longest_text, text_bytes
from gardener.cluster.doctor.seen import Examined, Role, Seen
from gardener.protocol.messages import Card
from gardener.runtime.wording import bare_span, printable

WIDE = 170
"""Columns where there is no terminal."""

COLUMNS = (
    "who",
    "where",
    "layers",
    "computes in",
    "texts up to",
    "{context} take",
    "memory free",
    "from here",
    "to the next",
    "clock",
    "now",
)

STYLES = {
    Severity.WRONG: "bold red",
    Severity.WAIT: "bold yellow",
    Severity.WARNING: "yellow",
    Severity.UNSEEN: "dim",
}


def show(seen: Seen, findings: Sequence[Finding]) -> None:
    """Print it to standard output."""
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    console.print(where_from(seen), markup=False)
    console.print()
    console.print(_table(seen))
    if seen.unread:
        console.print(f"\nthe holder's model was not compared: {seen.unread}", markup=False)
    for number, finding in enumerate(findings, 1):
        console.print()
        console.print(_headed(number, finding))
        if finding.command:
            place = f"on {finding.on}" if finding.on else "here"
            console.print(Text(f"   {place}: {finding.command}", "bold"), soft_wrap=True)
    console.print()
    console.print(conclusion(findings), markup=False)


def _headed(number: int, finding: Finding) -> Text:
    text = Text(f"{number}. ")
    text.append(f"{finding.severity}: ", STYLES[finding.severity])
    text.append(f"{finding.where}: {finding.sentence}")
    return text


def where_from(seen: Seen) -> str:
    """Which machine this is, as far as the addresses tell."""
    here = [each for each in seen.everybody if each.here]
    whose = f"{seen.cluster}" if seen.cluster else "the ring of these addresses"
    if len(here) == len(seen.everybody):
        return f"{whose}: all of it is on this machine"
    if not here:
        return (
            f"{whose}: no address of it is this machine's, so it is seen from outside; what is "
            "unreachable from here may be reachable from there"
        )
    names = [_name(each) for each in here]
    return f"{whose}: this is the machine of {' and '.join(names)}"


def _name(each: Examined) -> str:
    if each.target.role is Role.HOLDER:
        return "the holder"
    name = f"{each.target.role} {each.number or '?'}"
    return f"{name} (spare {each.spare})" if each.spare else name


def conclusion(findings: Sequence[Finding]) -> str:
    """The last line."""
    if not well(findings):
        count = sum(each.severity is Severity.WRONG for each in findings)
        if not count:
            return "nothing is wrong, but the ring is not ready yet"
        things = "1 thing is wrong" if count == 1 else f"{count} things are wrong"
        return f"{things}: mend them from the top, and look again"
    return "all is well: the ring is ready" if not findings else "the ring is ready; see above"


def _table(seen: Seen) -> Table:
    """Without the columns of which nobody has anything."""
    rows = [_cells(each, seen.context) for each in seen.everybody]
    shown = [at for at in range(len(COLUMNS)) if any(row[at] for row in rows)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for at in shown:
        name = COLUMNS[at].format(context=f"{seen.context:,}" if seen.context else "")
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(row[at])) for at in shown))
    return table


def _cells(each: Examined, context: int | None) -> list[str]:
    view, card, sight = each.view, each.ready, each.sight
    longest = longest_text(card) if card else None
    return [
        _name(each),
        str(each.target.address),
        bare_span(card.first, card.end) + f" of {card.layers}" if card and card.end else "",
        _computes(card) if card and card.end else "",
        f"{longest:,}" if longest is not None else "",
        f"{text_bytes(card, context) / 2**30:.2g} GiB" if card and card.end and context else "",
        f"{sight.free / 2**30:.1f} GiB" if sight and sight.free else "",
        _link(view.round_trip, view.bandwidth, "≥ ") if view else "",
        _next_link(each),
        f"{round(view.offset, 1) + 0.0:+.1f} s" if view else "",
        now(each),
    ]


def _computes(card: Card) -> str:
    return card.dtype if card.quant == "none" else f"{card.dtype} {card.quant}"


def _next_link(each: Examined) -> str:
    near = each.sight.downstream if each.sight else None
    if near is None:
        return ""
    return _link(near.round_trip / 1e6, float(near.bandwidth) or None)


def _link(round_trip: float, bandwidth: float | None, bound: str = "") -> str:
    """`12 ms, ≥ 110 MB/s`. `bound`: what the bandwidth is measured to be; from here it is measured
    in small frames, which take processors on both sides some time."""
    there = f"{1e3 * round_trip:.2g} ms" if round_trip < 0.1 else f"{1e3 * round_trip:.0f} ms"
    if bandwidth is None:
        return there
    return f"{there}, {bound}{bandwidth / 1e6:,.3g} MB/s"


def now(each: Examined) -> str:
    """What it does at this moment."""
    if each.unseen is not None:
        resting = each.target.role is Role.HOLDER and each.unseen.why == "nothing listens there"
        if each.relieved_by:
            return f"{each.unseen.why}; spare {each.relieved_by} is in its place"
        return "nobody asks" if resting else str(each.unseen.why)
    sight, card = each.sight, each.card
    if sight is None or card is None:
        return ""
    if sight.does:
        return sight.does
    if each.relieved_by:
        return f"waits; spare {each.relieved_by} is in its place"
    if sight.requests:
        return f"at work on {sight.requests} request{'s' * (sight.requests != 1)}"
    holder = sight.upstream if sight.upstream is not None and not sight.upstream.stage else None
    if holder is not None:
        return f"held by the holder at {holder.where}"
    if card.stage and sight.downstream is None and card.end < card.layers:
        return f"dials {sight.peer}"
    return "ready" if card.stage else "it is there"


def as_record(seen: Seen, findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "well": well(findings),
        "cluster": str(seen.cluster.path) if seen.cluster else None,
        "version": seen.version,
        "seen": [_record(each) for each in seen.everybody],
        "not_compared": seen.unread or None,
        "findings": [asdict(finding) for finding in findings],
    }


def _record(each: Examined) -> dict[str, Any]:
    view, unseen = each.view, each.unseen
    return {
        "role": each.target.role.value,
        "number": each.number or None,
        "spare": each.spare or None,
        "relieved_by": each.relieved_by or None,
        "address": str(each.target.address),
        "here": each.here,
        "unseen": None if unseen is None else {"why": unseen.why.value, "detail": unseen.detail},
        "round_trip": view.round_trip if view else None,
        "bandwidth": view.bandwidth if view else None,
        "clock_ahead": view.offset if view else None,
        "card": _fields(each.card),
        "sight": _fields(each.sight),
    }


def _fields(record: msgspec.Struct | None) -> dict[str, Any] | None:
    return None if record is None else msgspec.structs.asdict(record) | _near(record)


def _near(record: msgspec.Struct) -> dict[str, Any]:
    """Records inside of a record, which JSON would have as arrays."""
    found = ((name, getattr(record, name)) for name in record.__struct_fields__)
    return {name: _fields(value) for name, value in found if isinstance(value, msgspec.Struct)}
