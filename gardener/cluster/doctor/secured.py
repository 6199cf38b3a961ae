"""Whether links are secured, with certificates that hold."""

import time
from collections.abc import Iterator
from pathlib import Path

from gardener.cluster.doctor.finding import Finding, Severity, Subject
from gardener.cluster.doctor.key_commands import init, mended, renewed
from gardener.cluster.doctor.seen import Examined, Role, Seen
from gardener.net.address import is_loopback
from gardener.net.keys import DAY, SOON
from gardener.protocol.certificates import Identity, moment, stage_problem


def check_keys(seen: Seen) -> Iterator[Finding]:
    """Our own first, then those that the others have shown."""
    yield from _unsecured(seen)
    yield from _own(seen)
    for node in seen.everybody:
        identity = node.view.identity if node.view else None
        if identity is not None and node.card is not None:
            yield from _shown(seen, node, identity, node.card.stage)


def _unsecured(seen: Seen) -> Iterator[Finding]:
    """Between machines a node refuses links without keys, unless the file allows them."""
    cluster = seen.cluster
    if cluster is None or seen.secured or cluster.insecure:
        return
    far = [node for node in seen.everybody if not is_loopback(node.target.address.host)]
    if not far:
        return
    yield Finding(
        Subject.KEYS,
        Severity.WRONG,
        str(cluster),
        f"it names no keys, and {far[0]} is not only for this machine: nodes refuse links to other "
        'machines without. Make keys, write keys = "keys" above the tables, and copy to each '
        "machine what the command says (insecure = true does without, where all between is yours)",
        init(seen, cluster.path.parent / "keys"),
    )


def _own(seen: Seen) -> Iterator[Finding]:
    folder = seen.own.folder
    if folder is None:
        return
    alike: dict[str, list[str]] = {}
    for name, problem in seen.own.problems:
        alike.setdefault(problem, []).append(name)
    for problem, names in alike.items():
        more, command = mended(seen, folder, names[0], problem)
        where = f"{', '.join(names)} on this machine"
        yield Finding(Subject.KEYS, Severity.WRONG, where, problem + more, command)
    for name, warning in seen.own.warnings:
        where = f"{name} on this machine"
        yield Finding(Subject.KEYS, Severity.WARNING, where, warning, *renewed(folder, name))


def _shown(seen: Seen, node: Examined, identity: Identity, stage: int) -> Iterator[Finding]:
    """What is wrong with a certificate that was believed."""
    folder = seen.own.folder or Path("keys")
    spare = node.target.role is Role.SPARE and not stage and identity.name.startswith("spare-")
    if not spare and (why := stage_problem(identity, stage)):
        yield Finding(
            Subject.KEYS,
            Severity.WRONG,
            str(node),
            why,
            f"ls -l {folder if node.here else 'KEYS'}",
            node.machine,
        )
    left = (identity.until - time.time()) / DAY
    if left <= SOON and not node.here:
        yield Finding(
            Subject.KEYS,
            Severity.WARNING,
            str(node),
            f"its certificate, {identity}, expires in {left:.0f} days, at "
            f"{moment(identity.until)}: make new files, and copy them there before",
            *renewed(folder, identity.name),
        )
