"""The commands that give a machine the keys that it should have.

What nobody here knows is a word in capitals: KEYS is the folder of the keys on another machine,
HOST the one where they were made. Options of scp are those that every OpenSSH has.
"""

import re
import shlex
from pathlib import Path

from gardener.cluster.doctor.seen import Examined, Seen
from gardener.net.look import Why

FOREIGN = re.compile("is of another cluster|is not of its cluster")
"""What `protocol/certificates.py` says of a certificate that another CA has signed."""

WITH_CA = "the machine that has ca.key"


def mended(seen: Seen, folder: Path, name: str, problem: str) -> tuple[str, str]:
    """What is to be added to a problem with the keys of `name` on this machine, and the command
    against it."""
    if "chmod 600" in problem:
        return "", f"chmod 600 {_quoted(folder / f'{name}.key')}"
    if (folder / "ca.key").exists():
        return "", _added(folder, name)
    holder = seen.holder
    elsewhere = "" if holder is None or holder.here else holder.machine
    if elsewhere or _answers_with_keys(seen):
        return _words(elsewhere, name), fetched(folder, name, elsewhere)
    if any(folder.glob("*.pem")):
        new = folder.with_name(f"{folder.name}-new")
        return " (a new folder, which the file has to name, as its CA is lost)", init(seen, new)
    return "", init(seen, folder)


def renewed(folder: Path, name: str) -> tuple[str, str]:
    """The command that makes a new certificate by the same CA, and on which machine."""
    if (folder / "ca.key").exists():
        return _added(folder, name), ""
    return _added(Path("KEYS"), name, old=True), WITH_CA


def fetched(folder: Path, name: str, host: str = "") -> str:
    """Copies the three files that `name` needs from another machine to this one."""
    there = [f"{_at(host)}:KEYS/{each}" for each in _files(name)]
    make = "" if folder.exists() else f"mkdir -p -m 700 {_quoted(folder)} && "
    return f"{make}scp -p {shlex.join(there)} {_quoted(folder)}/"


def sent(folder: Path, node: Examined) -> str:
    """Copies the three files of a node there."""
    name = certificate(node)
    files = [str(folder / each) for each in _files(name)]
    return f"scp -p {shlex.join(files)} {shlex.quote(f'{_at(node.machine)}:KEYS/')}"


def certificate(node: Examined) -> str:
    """The name in the certificate of a node; `stage-N` where nobody has said which one it is."""
    return node.target.certificate if node.target.number else "stage-N"


def init(seen: Seen, folder: Path) -> str:
    """Makes the keys of a ring, where there are none yet."""
    words = ["gardener", "keys", "init", str(folder), "--stages", str(len(seen.stages))]
    spares = len(seen.cluster.spares) if seen.cluster else 0
    words += ["--spares", str(spares)] if spares else []
    words += ["--name", seen.cluster.name] if seen.cluster and seen.cluster.name else []
    return shlex.join(words)


def _answers_with_keys(seen: Seen) -> bool:
    """Whether somebody in the ring has keys, so that there is a CA."""
    return any(
        (node.view is not None and node.view.identity is not None)
        or (node.unseen is not None and node.unseen.why is Why.KEYS)
        for node in seen.everybody
    )


def _words(host: str, name: str) -> str:
    where = "" if host else f", HOST {WITH_CA}"
    return (
        f" (in the command, KEYS stands for their folder there{where}; if they are not there, "
        f"`gardener keys add KEYS {name}` makes them)"
    )


def _added(folder: Path, name: str, old: bool = False) -> str:
    """Makes the two files anew; `old` ones, and those that are seen here, are moved aside, for
    nothing is written over."""
    files = [folder / f"{name}{suffix}" for suffix in (".pem", ".key")]
    there = [each for each in files if old or each.exists()]
    moves = [shlex.join(["mv", str(each), f"{each}.old"]) for each in there]
    return " && ".join([*moves, shlex.join(["gardener", "keys", "add", str(folder), name])])


def _files(name: str) -> tuple[str, str, str]:
    return "ca.pem", f"{name}.pem", f"{name}.key"


def _at(host: str) -> str:
    """As scp takes a machine."""
    return f"[{host}]" if ":" in host else host or "HOST"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
