"""What the target has said of the rows of a request that still count."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gardener.decoding.tree import Tree
from gardener.errors import RemoteError
from gardener.protocol.messages import Verdict


@dataclass(slots=True)
class Judgements:
    """The target's own next token after each node that was judged; or, where the stages computed no
    numbers, the layer that was the first to compute none.

    `prompt`: nodes with smaller ids are certain from the start, and are not judged.
    """

    prompt: int
    broken_prompt: int | None = None
    """The layer, if a row of the prompt is broken."""
    _picks: dict[int, int] = field(default_factory=dict)
    _broken: dict[int, int] = field(default_factory=dict)

    def record(self, verdict: Verdict, tree: Tree, sent: Mapping[int, int]) -> None:
        """Note what is said of nodes of the tree; the rest came too late. `sent`: in which segment
        each of them left. Raises RemoteError for nodes of another segment, and if nothing is said
        of the root that was in this one."""
        for node, pick in zip(verdict.ids, verdict.picks, strict=True):
            if _counts(node, verdict.seq, tree, sent):
                self._picks[node] = pick
        for row, layer in ((each.row, each.layer) for each in verdict.broken):
            if row < self.prompt:
                self.broken_prompt = layer
            elif _counts(row, verdict.seq, tree, sent):
                self._broken[row] = layer
        if sent.get(tree.root) == verdict.seq and tree.root not in self:
            raise RemoteError(f"segment {verdict.seq} came back without a pick for the root")

    def __contains__(self, node: int) -> bool:
        """Whether it was judged."""
        return node in self._picks or node in self._broken

    def pick(self, node: int) -> int | None:
        """What follows it, if it was judged and is not broken."""
        return self._picks.get(node)

    def broken(self, node: int) -> int | None:
        """The layer by which it is broken, or the prompt before it; None: neither is."""
        return self._broken.get(node) if self.broken_prompt is None else self.broken_prompt

    def forget(self, node: int) -> None:
        """It counts no more."""
        self._picks.pop(node, None)
        self._broken.pop(node, None)


def _counts(node: int, seq: int, tree: Tree, sent: Mapping[int, int]) -> bool:
    if node not in tree:
        return False
    if sent.get(node) != seq:
        raise RemoteError(f"segment {seq} did not carry node {node}")
    return True
