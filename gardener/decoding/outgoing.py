"""The segments that leave."""

from collections.abc import Sequence

from gardener.decoding.tree import Node
from gardener.protocol.messages import Segment


def outgoing(
    request: int,
    seq: int,
    text: Sequence[int],
    prompt: Sequence[int],
    rows: Sequence[Node],
    places: Sequence[int],
) -> Segment:
    """A segment of rows of the prompt, then of the tree. `prompt`: the positions of the former in
    `text`, which are their ids; `places`: the positions of the latter."""
    return Segment(
        request=request,
        seq=seq,
        ids=(*prompt, *[node.id for node in rows]),
        parents=(*[p - 1 for p in prompt], *[node.parent for node in rows]),
        positions=(*prompt, *places),
        tokens=(*[text[p] for p in prompt], *[node.token for node in rows]),
        hidden=None,
        times=(),
    )
