"""Machines whose certificates another CA has signed."""

from collections.abc import Iterator
from pathlib import Path

from gardener.cluster.doctor.finding import Finding, Severity, Subject
from gardener.cluster.doctor.key_commands import FOREIGN, WITH_CA, certificate, fetched, sent
from gardener.cluster.doctor.seen import Examined, Seen
from gardener.net.look import Unseen, Why


def check_foreign(seen: Seen) -> Iterator[Finding]:
    """If all who answer are of another cluster, it is we who are: one finding."""
    others = foreign(seen)
    if others and _are_all(seen, others):
        yield _we(seen, others)
        return
    for node in others:
        if node.unseen is not None:
            yield _it(seen, node, node.unseen)


def foreign(seen: Seen) -> list[Examined]:
    """Those whose CA is not ours."""
    if seen.own.keys is None:
        return []
    return [
        node
        for node in (*seen.stages, *seen.spares)
        if node.unseen is not None
        and node.unseen.why is Why.KEYS
        and FOREIGN.search(node.unseen.detail)
    ]


def _are_all(seen: Seen, others: list[Examined]) -> bool:
    """Whether these are all stages that answer at all: then it is us who are of another cluster."""
    return all(
        node in others or (node.unseen is not None and node.unseen.why is not Why.KEYS)
        for node in seen.stages
    )


def _we(seen: Seen, others: list[Examined]) -> Finding:
    """One finding: the keys of this machine are the odd ones."""
    folder, keys = seen.own.folder, seen.own.keys
    assert folder is not None
    assert keys is not None
    name = keys.identity.name
    where, who = f"{name} on this machine", " and ".join(map(str, others))
    sentence = f"{who}: no certificate there is by the CA of {folder}, and none here by theirs"
    if (folder / "ca.key").exists():
        sentence += ": copy to each what that CA has signed (KEYS: the folder there), and start it"
        command = " && ".join(sent(folder, node) for node in others)
    else:
        host = "" if seen.holder is None else seen.holder.machine
        whose = "HOST and KEYS: " if not host else "KEYS: the folder on "
        sentence += (
            ": copy ca.pem and our own two files again, from where those were made "
            f"({whose}{host or 'the machine that has made them, and its folder'})"
        )
        command = fetched(folder, name, host)
    return Finding(Subject.KEYS, Severity.WRONG, where, sentence, command)


def _it(seen: Seen, node: Examined, unseen: Unseen) -> Finding:
    """Others are of our cluster, and it is not."""
    folder = seen.own.folder or Path("KEYS")
    here = (folder / f"{certificate(node)}.key").exists()
    return Finding(
        Subject.KEYS,
        Severity.WRONG,
        str(node),
        f"{unseen.detail}. Others are of our cluster: copy ca.pem and its own two files there "
        "again, and start it anew (KEYS: the folder of keys)",
        sent(folder if here else Path("KEYS"), node),
        "" if here else WITH_CA,
    )
