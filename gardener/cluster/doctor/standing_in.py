"""Spares: those that stand by, those that are a stage now, and the stages in whose place they are.

A spare that has stepped in is that stage, at its own address. The stage itself, if it comes back,
is not needed: it waits until the spare is gone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gardener.cluster.doctor import commands
from gardener.cluster.doctor.finding import Finding, Severity, Subject
from gardener.cluster.doctor.seen import Examined, Role, Seen, Target
from gardener.stages.phases import Phase


def with_spares(seen: Seen, spares: Sequence[Examined]) -> Seen:
    """The same, with each of these spares where it belongs."""
    stages, relieved, idle = list(seen.stages), [], []
    for spare in spares:
        number = spare.card.stage if spare.card is not None else 0
        at = next((n for n, each in enumerate(stages) if each.target.number == number), None)
        if not number or at is None or not _stands_in(spare, stages[at]):
            idle.append(spare)
            continue
        own = stages[at]
        target = Target(Role.STAGE, number, spare.target.address, own.target.place)
        relieved.append(replace(own, relieved_by=spare.target.number))
        stages[at] = replace(spare, target=target, spare=spare.target.number)
    return replace(seen, stages=tuple(stages), spares=tuple(idle), relieved=tuple(relieved))


def _stands_in(spare: Examined, own: Examined) -> bool:
    """Whether this spare, which is that stage, is the one that counts: one at most has links."""
    return not own.spare and (_has_links(spare) or not _has_links(own))


def _has_links(node: Examined) -> bool:
    sight = node.sight
    return sight is not None and bool(sight.upstream or sight.downstream)


def stands_by(node: Examined) -> bool:
    """Whether it is a spare that waits for a stage to stay away."""
    return node.sight is not None and node.sight.does.startswith(Phase.STANDING_BY.value)


def stepping_in(spares: Sequence[Examined]) -> list[Examined]:
    """Those that were asked, and are not ready yet."""
    return [each for each in spares if each.sight and each.sight.does and not stands_by(each)]


def check_spares(seen: Seen) -> Iterator[Finding]:
    """Who is in whose place, as far as that can be undone."""
    for node in seen.relieved:
        sentence = f"spare {node.relieved_by} is this stage now, and the ring does without it: "
        if node.unseen is None:
            sentence += "it waits until that spare is gone"
        else:
            sentence += "start it, and then that spare anew, to have both where they were"
        command = commands.start(seen, node) if node.unseen else ""
        yield Finding(Subject.PLACE, Severity.WARNING, str(node), sentence, command, node.machine)
    for node in seen.spares:
        if node.card is not None and node.card.stage and node.sight and not node.sight.does:
            yield Finding(
                Subject.PLACE,
                Severity.WARNING,
                str(node),
                f"it has become stage {node.card.stage}, and another one is that: start it anew, "
                "so that it stands by again",
                commands.start(seen, node),
                node.machine,
            )
