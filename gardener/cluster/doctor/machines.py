"""Whether each machine has the memory that it has promised, and the right time."""

import math
from collections import defaultdict
from collections.abc import Iterator

from gardener.cluster.doctor import commands
from gardener.cluster.doctor.finding import Finding, Severity, Subject
from gardener.cluster.doctor.seen import Examined, Role, Seen
from gardener.net.look import View
from gardener.protocol.cards import kv_slots, memory_problem
from gardener.protocol.messages import SPARE, Card
from gardener.protocol.room import longest_in, slots_for

APART = 5.0
"""Seconds by which clocks may differ without a word."""

GIB = 2**30


def check_clocks(seen: Seen) -> Iterator[Finding]:
    """Certificates hold from one moment to another, and logs are read side by side."""
    for node in seen.everybody:
        view = node.view
        if view is None or abs(view.offset) - view.round_trip / 2 <= APART:
            continue
        suffers = (
            "its certificates are read with that clock"
            if seen.secured
            else "with --keys, its certificates would be read with that clock"
        )
        later = "expire that much too early" if view.offset > 0 else "not hold for as long yet"
        yield Finding(
            Subject.CLOCK,
            Severity.WRONG if seen.secured else Severity.WARNING,
            str(node),
            f"its clock is {_duration(abs(view.offset))} {_direction(view)} this machine's: one of "
            f"the two is wrong. {suffers[0].upper()}{suffers[1:]}: those that were just made "
            f"{'would ' if not seen.secured else ''}{later}",
            "sudo timedatectl set-ntp true",
            node.machine,
        )


def _direction(view: View) -> str:
    return "ahead of" if view.offset > 0 else "behind"


def _duration(seconds: float) -> str:
    """`5.2 s`, `3 min` or `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


def check_memory(seen: Seen) -> Iterator[Finding]:
    """What requests may take: as long as the file says, and no more than is there."""
    asked = seen.cluster.context if seen.cluster else None
    for node in seen.stages:
        card = node.ready
        if card is None or node.target.role is not Role.STAGE:
            continue
        if asked and card.longest and card.longest < asked:
            yield _too_short(seen, node, asked, card.longest)
        elif problem := memory_problem(asked or 1, [card]):
            yield Finding(
                Subject.MEMORY,
                Severity.WRONG,
                str(node),
                problem.replace("--context is", "context is"),
                commands.start(seen, node, kv_memory=_needed(card, asked or 1)),
                node.machine,
            )
    yield from _crowded(seen, seen.context)


def _too_short(seen: Seen, node: Examined, asked: int, longest: int) -> Finding:
    return Finding(
        Subject.MEMORY,
        Severity.WRONG,
        str(node),
        f"it takes texts of up to {longest} tokens, and the file says that they may have {asked}: "
        "start it again with the file as it is",
        commands.start(seen, node, context=str(asked)),
        node.machine,
    )


def _needed(card: Card, tokens: int) -> str:
    """GiB of keys and values for one request of so many tokens, rounded up."""
    return f"{math.ceil(100 * text_bytes(card, tokens) / GIB) / 100:g}"


def _crowded(seen: Seen, context: int | None) -> Iterator[Finding]:
    """On one machine and device there is less memory left than one long text takes. Where nobody
    says how long a text may be, a stage should have what it has promised."""
    together = defaultdict[tuple[str, str], list[Examined]](list)
    for node in seen.stages:
        if node.ready is not None and node.sight is not None and node.sight.free:
            together[node.ready.name, node.sight.device].append(node)
    for nodes in together.values():
        free = min(node.sight.free for node in nodes if node.sight is not None)
        promised = _sum(nodes, context)
        if promised <= free:
            continue
        first, others = nodes[0], len(nodes) > 1
        who = " and ".join(f"stage {node.number}" for node in nodes) if others else "this stage"
        text = f"a text of {context} tokens takes" if context else "keys and values may still take"
        share = f"{max(free / 2 / GIB / len(nodes), 0.01):.2g}"
        yield Finding(
            Subject.MEMORY,
            Severity.WARNING,
            str(first),
            f"{text} {promised / GIB:.2g} GiB at {who}, and only {free / GIB:.2g} GiB are free on "
            f"{first.sight.device if first.sight else ''} there: long texts would fail. End what "
            "else takes memory, or promise less",
            commands.start(seen, first, kv_memory=share),
            first.machine,
        )


def _sum(nodes: list[Examined], context: int | None) -> int:
    """Bytes that one text of so many tokens takes at all of them; without a context, what the
    greediest has promised and not set aside."""
    if context is not None:
        return sum(text_bytes(node.ready, context) for node in nodes if node.ready is not None)
    return max(
        node.ready.kv_room - node.sight.used * node.ready.kv_slot
        for node in nodes
        if node.ready is not None and node.sight is not None
    )


def text_bytes(card: Card, tokens: int) -> int:
    """What keys and values of one request of so many tokens take at a stage."""
    return slots_for(tokens, SPARE) * card.kv_slot


def longest_text(card: Card) -> int | None:
    """Most tokens of one request at this stage; None: nothing bounds it."""
    slots = kv_slots(card)
    fits = None if slots is None else max(longest_in(slots, SPARE), 0)
    limits = [limit for limit in (fits, card.longest or None) if limit is not None]
    return min(limits, default=None)
