"""Whether links are secured, with certificates that hold."""

import time
from collections.abc import Iterator
from pathlib import Path

from gardener.cluster.doctor.finding import Finding, Severity, Subject
from gardener.cluster.doctor.own_keys import init, mended
from gardener.cluster.doctor.seen import Examined, Seen
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
        init(cluster.path.parent / "keys", len(seen.stages), len(seen.spares)),
    )


def _own(seen: Seen) -> Iterator[Finding]:
    folder = seen.own.folder
    if folder is None:
        return
    holder = seen.holder
    made_at = "" if holder is None or holder.here else holder.machine
    alike: dict[str, list[str]] = {}
    for name, problem in seen.own.problems:
        alike.setdefault(problem, []).append(name)
    for problem, names in alike.items():
        yield Finding(
            Subject.KEYS,
            Severity.WRONG,
            f"{', '.join(names)} on this machine",
            problem,
            mended(folder, names[0], problem, made_at, len(seen.stages), len(seen.spares)),
        )
    for name, warning in seen.own.warnings:
        yield Finding(
            Subject.KEYS, Severity.WARNING, f"{name} on this machine", warning, _anew(seen, folder)
        )


def _anew(seen: Seen, folder: Path) -> str:
    return init(folder.with_name(f"{folder.name}-new"), len(seen.stages), len(seen.spares))


def _shown(seen: Seen, node: Examined, identity: Identity, stage: int) -> Iterator[Finding]:
    """What is wrong with a certificate that was believed."""
    folder = seen.own.folder or Path("keys")
    if why := stage_problem(identity, stage):
        yield Finding(
            Subject.KEYS,
            Severity.WRONG,
            str(node),
            why,
            f"ls -l {folder}",
            node.machine,
        )
    left = (identity.until - time.time()) / DAY
    if left <= SOON and not node.here:
        yield Finding(
            Subject.KEYS,
            Severity.WARNING,
            str(node),
            f"its certificate, {identity}, expires in {left:.0f} days, at "
            f"{moment(identity.until)}: make new files, and change them on all machines before",
            _anew(seen, folder),
        )
