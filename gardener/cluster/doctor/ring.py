"""Whether those who answer make one ring: versions, places, model, layers, links."""

import re
from collections.abc import Iterator
from dataclasses import replace

from gardener.cluster.checks import RANGE
from gardener.cluster.doctor import commands
from gardener.cluster.doctor.finding import Finding, Severity, Subject
from gardener.cluster.doctor.seen import Examined, Seen
from gardener.cluster.doctor.standing_in import stepping_in
from gardener.cluster.places import StagePlace
from gardener.net.look import Unseen, Why
from gardener.protocol.cards import mismatch
from gardener.protocol.messages import Card
from gardener.runtime.wording import bare_span, span

_MODEL = re.compile("hold different|has a folder|have folders|computes")
"""Sentences of `mismatch` that are about the model, and not about who holds which layers."""


def check_versions(seen: Seen) -> Iterator[Finding]:
    """One Gardener everywhere."""
    for node in seen.everybody:
        if node.card is not None and node.card.version != seen.version:
            yield Finding(
                Subject.VERSION,
                Severity.WRONG,
                str(node),
                f"it runs gardener {node.card.version}, and this machine {seen.version}: install "
                "the same version on both, and start it again",
                commands.install(seen.version),
                node.machine,
            )


def check_phases(seen: Seen) -> Iterator[Finding]:
    """Who is still on the way."""
    for node in (*seen.stages, *stepping_in(seen.spares)):
        if node.sight is not None and node.sight.does:
            yield Finding(
                Subject.PHASE,
                Severity.WAIT,
                str(node),
                f"it {node.sight.does}: wait, and look again",
                commands.again(seen),
            )


def check_places(seen: Seen) -> Iterator[Finding]:
    """Everybody is where the file says, and holds what it says."""
    for node in seen.stages:
        if node.card is None or not node.target.number:
            continue
        if node.card.stage != node.target.number:
            yield _another(seen, node, node.card)
        elif node.stage is not None and node.ready is not None:
            for wrong in _unlike(node.stage, node.ready):
                yield Finding(
                    Subject.PLACE,
                    Severity.WRONG,
                    str(node),
                    f"{wrong}: start it again with the file as it is, or correct the file",
                    commands.start(seen, node),
                    node.machine,
                )


def _another(seen: Seen, node: Examined, card: Card) -> Finding:
    who = f"stage {card.stage}" if card.stage else "a holder"
    return Finding(
        Subject.PLACE,
        Severity.WRONG,
        str(node),
        f"{who} answers there, and it should be stage {node.target.number}: correct "
        f"{_where(seen)}, or end what runs there and start the right one",
        commands.start(seen, _as_expected(node)),
        node.machine,
    )


def _where(seen: Seen) -> str:
    return f"host and port in {seen.cluster.path}" if seen.cluster else "the order of --peer"


def _as_expected(node: Examined) -> Examined:
    """The same without what was seen, which is somebody else."""
    return replace(node, seen=Unseen(Why.REFUSED))


def _unlike(place: StagePlace, card: Card) -> Iterator[str]:
    """What a stage is otherwise than the file says."""
    if place.layers is not None and _range(place.layers) != (card.first, card.end):
        held = bare_span(card.first, card.end)
        yield f"it holds layers {held}, and the file says {place.layers}"
    if card.dtype != place.dtype:
        yield f"it computes in {card.dtype}, and the file says {place.dtype}"
    if place.quant != "auto" and card.quant != place.quant:
        yield f"its quant is {card.quant}, and the file says {place.quant}"


def _range(layers: str) -> tuple[int, int]:
    """Half-open. `read_cluster` has checked it."""
    match = RANGE.fullmatch(layers)
    assert match is not None
    return int(match[1]), int(match[2] or match[1]) + 1


def check_seams(seen: Seen) -> Iterator[Finding]:
    """One model, and every layer of it once. Where one stage cannot be seen, or is another one than
    it should be, nothing is said of its two seams: that comes first."""
    for node in seen.stages:
        before = seen.before(node)
        if _in_its_place(node) and (before is None or _in_its_place(before)):
            yield from _above(seen, node)
    last = seen.stages[-1]
    if last.ready is not None and _in_its_place(last) and last.ready.end < last.ready.layers:
        yield _unfinished(seen, last, last.ready)


def _in_its_place(node: Examined) -> bool:
    return node.ready is not None and node.target.number in (0, node.ready.stage)


def _above(seen: Seen, node: Examined) -> Iterator[Finding]:
    """What does not fit between a stage and who dials it."""
    before, card = seen.before(node), node.ready
    if card is None:
        return
    if before is None:
        upper = _holder_card(seen, card)
    elif before.ready is not None:
        upper = before.ready
    else:
        return
    if upper.version != card.version:
        return  # that is said already
    problem = mismatch(upper, card)
    if problem is None:
        return
    about_model = _MODEL.search(problem) is not None
    options = {} if about_model or seen.cluster else {"layers": commands.layers(seen, node)}
    yield Finding(
        Subject.MODEL if about_model else Subject.COVERAGE,
        Severity.WRONG,
        str(node),
        problem,
        commands.start(seen, node, **options),
        node.machine,
    )


def _holder_card(seen: Seen, first: Card) -> Card:
    """Of a holder with the model of this machine, or of the first stage's where none is known."""
    model = seen.model or first.model
    return Card(
        0, "", seen.version, 0, 0, first.layers, first.width, model, first.dtype, first.quant, 0
    )


def _unfinished(seen: Seen, last: Examined, card: Card) -> Finding:
    missing = span(card.end, card.layers)
    return Finding(
        Subject.COVERAGE,
        Severity.WRONG,
        str(last),
        f"it is the last stage, and ends at layer {card.end - 1} of {card.layers}: {missing} of "
        "the model are nowhere",
        commands.start(seen, last, layers=bare_span(card.first, card.layers)),
        last.machine,
    )


def check_links(seen: Seen) -> Iterator[Finding]:
    """Each stage has a link to the next one. The holder comes and goes."""
    for node in seen.stages:
        after = seen.after(node)
        if node.sight is None or node.sight.does:
            continue
        yield from _dialled_elsewhere(seen, node)
        if after is None or after.sight is None or after.sight.does or node.sight.downstream:
            continue  # what the next one lacks comes first
        yield _unlinked(seen, node, after)


def _dialled_elsewhere(seen: Seen, node: Examined) -> Iterator[Finding]:
    """The file has another address for the next peer than the stage was started with."""
    if seen.cluster is None or node.sight is None or not node.sight.peer:
        return
    if node.number != node.target.number:
        return
    expected = str(seen.cluster.after(node.number).address)
    if node.sight.peer == expected:
        return
    after = seen.cluster.after(node.number)
    whom = "the holder" if after is seen.cluster.holder else f"stage {node.number + 1}"
    linked = node.sight.downstream is not None
    yield Finding(
        Subject.NEIGHBOUR,
        Severity.WARNING if linked else Severity.WRONG,
        str(node),
        f"it dials {whom} at {node.sight.peer}, and the file says {expected}: start it again with "
        "the file as it is",
        commands.start(seen, node),
        node.machine,
    )


def _unlinked(seen: Seen, node: Examined, after: Examined) -> Finding:
    assert node.sight is not None
    assert after.sight is not None
    if not node.sight.obstacle:
        return Finding(
            Subject.NEIGHBOUR,
            Severity.WAIT,
            str(node),
            f"it has no link to {after} yet, and dials it: wait, and look again",
            commands.again(seen),
        )
    taken = after.sight.upstream
    if taken is not None:
        return Finding(
            Subject.NEIGHBOUR,
            Severity.WRONG,
            str(after),
            f"it is taken by stage {taken.stage} at {taken.where}, and {node} is refused: end that "
            "other ring, or one of the two nodes",
            f"kill $(pgrep -f 'gardener-node.*--stage {taken.stage}')",
            taken.where.rpartition(":")[0],
        )
    return Finding(
        Subject.NEIGHBOUR,
        Severity.WRONG,
        str(node),
        f"it cannot reach {after}, which answers here. It says: {node.sight.obstacle}. Start it "
        "with an address under which it finds the other, or let its port through the firewall "
        "between the two",
        f"sudo ufw allow from {node.target.address.host} to any port {after.target.address.port} "
        "proto tcp",
        after.machine,
    )
