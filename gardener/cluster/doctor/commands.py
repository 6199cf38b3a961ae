"""The very command that mends something."""

import shlex

from gardener.cluster.doctor.seen import Examined, Role, Seen
from gardener.runtime.wording import bare_span

PACKAGE = "gardener-node"
"""The name under which pip knows us."""


def start(seen: Seen, node: Examined, **options: str) -> str:
    """Starts this node, or starts it again. `options`: besides what it needs anyway."""
    role, number = (Role.SPARE, node.spare) if node.spare else (node.target.role, node.number)
    words = ["gardener-node", f"--{role}", str(number or "N")]
    if seen.cluster is not None:
        words += ["--cluster", seen.file] if seen.file else []
    elif node.target.role is Role.STAGE:
        words += _place(seen, node, options)
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    return shlex.join(words)


def _place(seen: Seen, node: Examined, options: dict[str, str]) -> list[str]:
    """Where a stage listens, whom it dials and what it holds, without a file that says so. What
    nobody knows is a word in capitals."""
    words = ["--listen", str(node.target.address), "--peer", _next(seen, node)]
    if "layers" not in options:
        words += ["--layers", layers(seen, node)]
    words += ["--model", seen.named or "MODEL"]
    computes = node.ready or next((each.ready for each in seen.stages if each.ready), None)
    if computes is not None and computes.dtype != "float32":
        words += ["--dtype", computes.dtype]
    if computes is not None and computes.quant != "none":
        words += ["--quant", computes.quant]
    return words if seen.own.folder is None else [*words, "--keys", str(seen.own.folder)]


def _next(seen: Seen, node: Examined) -> str:
    after = seen.after(node)
    if node.sight is not None and node.sight.peer:
        return node.sight.peer
    if after is not None:
        return str(after.target.address)
    return str(seen.holder.target.address) if seen.holder else "HOST:PORT"


def layers(seen: Seen, node: Examined) -> str:
    """The layers that close the gap between its neighbours."""
    before, after = seen.before(node), seen.after(node)
    above = before.ready if before else None
    below = after.ready if after else None
    first = above.end if above else 0 if before is None else None
    known = above or node.ready
    end = below.first if below else known.layers if known else None
    if first is None or not end or first >= end:
        return "A-B"
    return bare_span(first, end)


def again(seen: Seen) -> str:
    """Looks again."""
    return f"gardener doctor{seen.file and f' --cluster {shlex.quote(seen.file)}'}"


def install(version: str) -> str:
    """The Gardener of this version."""
    return f"pip install '{PACKAGE}=={version}'"
