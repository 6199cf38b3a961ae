"""How far the reading of weights is."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]
"""Told how much is done, and how much there is in all: bytes here."""


def nowhere(done: int, whole: int) -> None:
    """Nobody wants to know."""


class Reading:
    """Tells `progress` after each tensor. `sizes`: the bytes of all that are to be read."""

    def __init__(self, sizes: Mapping[str, int], progress: Progress) -> None:
        self._left = dict(sizes)
        self._whole, self._done = sum(sizes.values()), 0
        self._progress = progress
        progress(0, self._whole)

    def read(self, name: str) -> None:
        """This tensor has been. Of one that is read again, nothing more is."""
        self._done += self._left.pop(name, 0)
        self._progress(self._done, self._whole)
