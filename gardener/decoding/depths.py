"""How deep below the root guesses were when they left, and how many came true at each depth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gardener.decoding.tree import Node


@dataclass(slots=True)
class Depths:
    """Those of one request. Index 0 of `sent` and `accepted` is depth 1, right below the root as it
    was when the segment left: how far ahead of what was certain then."""

    sent: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    _living: dict[int, int] = field(default_factory=dict)  # node that was sent -> its depth

    def leave(self, nodes: Sequence[int], depth: Callable[[int], int]) -> list[int]:
        """These are in a segment that leaves; their depths. A root is no guess."""
        depths = [depth(node) for node in nodes]
        missing = max(depths, default=0) - len(self.sent)
        if missing > 0:
            self.sent += [0] * missing
            self.accepted += [0] * missing
        for node, deep in zip(nodes, depths, strict=True):
            if deep:
                self._living[node] = deep
                self.sent[deep - 1] += 1
        return depths

    def walk(self, heir: Node | None, dead: Sequence[int]) -> None:
        """The root moved to `heir` (None: to a token that nobody had guessed), and these died."""
        deep = None if heir is None else self._living.pop(heir.id, None)
        if deep is not None:
            self.accepted[deep - 1] += 1
        for node in dead:
            self._living.pop(node, None)

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Guesses sent and accepted, from depth 1 on."""
        return tuple(zip(self.sent, self.accepted, strict=True))
