"""The one rule of life, at the holder and at every stage.

A node lives if it is the root, an ancestor of the root, or a descendant of the root. The holder
walks its tree (`Tree.advance`); a stage knows rows and their parents only.
"""

from collections.abc import Iterable


def descendants(root: int, rows: Iterable[tuple[int, int]]) -> set[int]:
    """Ids of the `(id, parent)` rows below `root`; parents come before their children."""
    below: set[int] = set()
    for row, parent in rows:
        if parent == root or parent in below:
            below.add(row)
    return below
