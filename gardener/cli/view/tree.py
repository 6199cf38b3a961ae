"""The token tree as a drawing, with the likeliest branches from the root to the right.

● range ─┬─ is ── a ── mountain  41%
         ├─ in ── the  9%
         └─ of  4%

rich's own `Tree` gives every node a line of its own; this one gives a line to every branch, so
that a few lines of a terminal show a whole token tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len

from gardener.cli.view.lines import Line, cut, length, styled
from gardener.cli.view.units import percent
from gardener.watch.answer import token_text
from gardener.watch.status import ShownNode, TreeNodeState

STYLES: dict[TreeNodeState, str] = {"judged": "green", "ring": "cyan", "waiting": ""}

JOINT = 5
"""Cells of the connection between a token and the next one."""

ENDING = 6
"""Cells of a probability at the end of a branch."""


@dataclass(slots=True)
class _Branch:
    node: ShownNode
    children: "list[_Branch]" = field(default_factory=list)


def draw(nodes: Sequence[ShownNode], width: int, height: int) -> list[Line]:
    """The root and the likeliest of the others, in at most `height` lines of `width` cells.

    The root is the first of `nodes`, and every parent stands before its children.
    """
    if not nodes or height < 1 or width < 1:
        return []
    root = _select(nodes, width, height)
    mark = [styled("● ", "bold yellow"), styled(token_text(root.node.text), "bold yellow")]
    return [cut(line, width) for line in (_below(root, mark) if root.children else [mark])]


def _select(nodes: Sequence[ShownNode], width: int, height: int) -> _Branch:
    """The likeliest nodes that fit, with as many branches as there are lines."""
    root = _Branch(nodes[0])
    placed = {root.node.id: (root, 2 + cell_len(token_text(root.node.text)))}
    left = height - 1
    for node in sorted(nodes[1:], key=lambda each: (-each.probability, each.id)):
        if node.parent not in placed:
            continue  # its parent did not fit
        parent, column = placed[node.parent]
        column += JOINT + cell_len(token_text(node.text))
        branches = bool(parent.children)  # a first child goes on in the line of its parent
        if column + ENDING > width or (branches and not left):
            continue
        left -= branches
        branch = _Branch(node)
        parent.children.append(branch)
        placed[node.id] = (branch, column)
    return root


def _block(branch: _Branch) -> list[Line]:
    """The lines of a node and of all that is below it."""
    node = branch.node
    head = [styled(token_text(node.text), STYLES[node.state])]
    if branch.children:
        return _below(branch, head)
    return [[*head, styled(f"  {percent(node.probability)}", "dim")]]


def _below(branch: _Branch, head: Line) -> list[Line]:
    """The lines of the children of a node; the first of them stands in the line of `head`."""
    indent = " " * (length(head) + 1)
    lines: list[Line] = []
    last = len(branch.children) - 1
    for number, child in enumerate(branch.children):
        bar = " │  " if number < last else "    "
        first, *others = _block(child)
        if number:
            lines.append([styled(f"{indent}{' ├─ ' if number < last else ' └─ '}", "dim"), *first])
        else:
            lines.append([*head, styled(" ─┬─ " if last else " ─── ", "dim"), *first])
        lines += [[styled(indent + bar, "dim"), *line] for line in others]
    return lines
