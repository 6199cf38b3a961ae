"""Whether everybody can be found, reached and understood."""

from collections.abc import Iterator

from gardener.cluster.doctor import commands
from gardener.cluster.doctor.finding import Finding, Severity, Subject
from gardener.cluster.doctor.foreign import foreign
from gardener.cluster.doctor.seen import Examined, Role, Seen
from gardener.cluster.doctor.standing_in import stepping_in
from gardener.net.look import Unseen, Why

_FAR = (Why.NAME, Why.REFUSED, Why.TIMEOUT, Why.NETWORK)
"""Reasons that hold for who looks, and not for everybody: another machine may know the name, or be
on the right side of a firewall."""


def check_reach(seen: Seen) -> Iterator[Finding]:
    """Everybody of whom nothing is to be seen, but for a holder, which comes and goes, and for
    those of another cluster."""
    others = foreign(seen)
    for node in (*seen.stages, *seen.spares):
        if node.unseen is None or node in others:
            continue
        if seen.secured and seen.own.keys is None and node.unseen.why is Why.KEYS:
            yield _without_keys(node)
        else:
            yield _linked(seen, node) or _unreached(seen, node, node.unseen)


def _without_keys(node: Examined) -> Finding:
    return Finding(
        Subject.KEYS,
        Severity.UNSEEN,
        str(node),
        "it answers, and was not looked at: for that this machine needs keys that can be used",
    )


def _linked(seen: Seen, node: Examined) -> Finding | None:
    """The stage before it has a link to it all the same; None: it has not, or nobody knows."""
    before = seen.before(node) if node in seen.stages else None
    near = before.sight.downstream if before is not None and before.sight is not None else None
    if node.unseen is None or node.unseen.why not in _FAR or near is None:
        return None
    return Finding(
        Subject.REACH,
        Severity.UNSEEN,
        str(node),
        f"it cannot be looked at from this machine ({_because(node.unseen)}), but {before} has a "
        "link to it: run `gardener doctor` there to see more",
        commands.again(seen),
        before.machine if before is not None else "",
    )


def _because(unseen: Unseen) -> str:
    return f"{unseen.why}: {unseen.detail}" if unseen.detail else str(unseen.why)


def _unreached(seen: Seen, node: Examined, unseen: Unseen) -> Finding:
    subject, sentence, command, on = _MENDED[unseen.why](seen, node, unseen)
    if node.target.role is Role.SPARE:  # the ring does without
        return Finding(subject, Severity.WARNING, str(node), sentence, command, on)
    if coming := stepping_in(seen.spares):
        sentence += f"; {coming[0]} steps in for a stage that stays away: wait, and look again"
        return Finding(subject, Severity.WAIT, str(node), sentence, commands.again(seen))
    return Finding(subject, Severity.WRONG, str(node), sentence, command, on)


_Mended = tuple[Subject, str, str, str]


def _name(seen: Seen, node: Examined, unseen: Unseen) -> _Mended:
    host = node.target.address.host
    where = f"correct host in {node.target.table} of {seen.file or 'cluster.toml'}, "
    return (
        Subject.NAME,
        f"the name {host} cannot be resolved here ({unseen.detail}): "
        f"{where if seen.cluster else ''}or make it known, with the address of that machine",
        f"echo 'ADDRESS {host}' | sudo tee -a /etc/hosts",
        "",
    )


def _refused(seen: Seen, node: Examined, unseen: Unseen) -> _Mended:
    host = node.target.address.host
    sentence = "nothing listens at that port: start it"
    if not node.here:
        sentence = (
            f"the machine is there, but {sentence}; if it runs, see that it listens at {host} and "
            "not at 127.0.0.1"
        )
    return Subject.REACH, sentence, commands.start(seen, node), node.machine


def _timeout(seen: Seen, node: Examined, unseen: Unseen) -> _Mended:
    port = node.target.address.port
    return (
        Subject.REACH,
        "nothing comes back at all: the machine is off, the address is another one's, or a "
        f"firewall on the way drops what is sent to port {port}",
        f"sudo ufw allow {port}/tcp",
        node.machine,
    )


def _network(seen: Seen, node: Examined, unseen: Unseen) -> _Mended:
    host = node.target.address.host
    return (
        Subject.REACH,
        f"this machine cannot send anything there ({unseen.detail}): see to its network",
        f"ping -c 3 {host}",
        "",
    )


def _silent(seen: Seen, node: Examined, unseen: Unseen) -> _Mended:
    return (
        Subject.REACH,
        "connections are accepted, and then nothing is said: the node stands still (in state T it "
        "was stopped: kill -CONT PID lets it go on), or it is no node at all",
        "ps -o pid,stat,etime,args -C gardener-node",
        node.machine,
    )


def _stranger(seen: Seen, node: Examined, unseen: Unseen) -> _Mended:
    port = node.target.address.port
    return (
        Subject.STRANGER,
        f"{unseen.detail} listens there, no node: stop it, or give "
        f"{node.target.role} {node.number or ''} another port; the command says what it is",
        f"sudo ss -ltnp 'sport = :{port}'",
        node.machine,
    )


def _keys(seen: Seen, node: Examined, unseen: Unseen) -> _Mended:
    """The sentence says which end has to change, and how."""
    if seen.secured:
        return Subject.KEYS, unseen.detail, commands.start(seen, node), node.machine
    return (
        Subject.KEYS,
        f"{unseen.detail}. It was looked at without keys",
        f"{commands.again(seen)} --keys DIR",
        "",
    )


def _bye(seen: Seen, node: Examined, unseen: Unseen) -> _Mended:
    if any(words in unseen.detail for words in _VERSIONS):
        return (
            Subject.VERSION,
            f"another version of Gardener runs there than {seen.version} here ({unseen.detail})",
            commands.install(seen.version),
            node.machine,
        )
    return (
        Subject.STRANGER,
        f"it does not let us look: {unseen.detail}",
        commands.start(seen, node),
        node.machine,
    )


_VERSIONS = ("speak protocol", "no message has the code")
"""What somebody says who does not understand how we look."""

_MENDED = {
    Why.NAME: _name,
    Why.REFUSED: _refused,
    Why.TIMEOUT: _timeout,
    Why.NETWORK: _network,
    Why.SILENT: _silent,
    Why.STRANGER: _stranger,
    Why.KEYS: _keys,
    Why.BYE: _bye,
}


def check_holder(seen: Seen) -> Iterator[Finding]:
    """Whether the holder can be where the last stage dials it. That nobody is there is well."""
    holder = seen.holder
    if holder is None or (holder.card is not None and not holder.card.stage):
        return
    if seen.taken:
        yield Finding(Subject.HOLDER, Severity.WRONG, str(holder), *_cannot_listen(seen))
    elif holder.card is not None:
        yield Finding(
            Subject.HOLDER,
            Severity.WRONG,
            str(holder),
            f"stage {holder.card.stage} listens where the last stage dials the holder: give one of "
            "the two another port",
            f"sudo ss -ltnp 'sport = :{holder.target.address.port}'",
            holder.machine,
        )
    elif holder.unseen is not None and not holder.here:
        yield from _far_holder(seen, holder, holder.unseen)


def _cannot_listen(seen: Seen) -> tuple[str, str]:
    assert seen.holder is not None
    port = seen.holder.target.address.port
    return (
        f"`gardener chat` could not listen where the last stage dials it: {seen.taken}",
        f"sudo ss -ltnp 'sport = :{port}'",
    )


def _far_holder(seen: Seen, holder: Examined, unseen: Unseen) -> Iterator[Finding]:
    """The last stage dials it from its machine; from others it does not matter."""
    last = seen.stages[-1]
    if unseen.why is Why.REFUSED:
        return
    if last.here and unseen.why in (Why.NAME, Why.TIMEOUT, Why.NETWORK):
        subject, sentence, command, on = _MENDED[unseen.why](seen, holder, unseen)
        yield Finding(subject, Severity.WRONG, str(holder), sentence, command, on)
    elif unseen.why in (Why.STRANGER, Why.BYE):
        subject, sentence, command, on = _MENDED[unseen.why](seen, holder, unseen)
        yield Finding(Subject.HOLDER, Severity.WRONG, str(holder), sentence, command, on)
    else:
        yield Finding(
            Subject.HOLDER,
            Severity.UNSEEN,
            str(holder),
            f"{_because(unseen)}. It matters from the machine of stage {last.number} alone, which "
            "dials it: run `gardener doctor` there",
            commands.again(seen),
            last.machine,
        )
