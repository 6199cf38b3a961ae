"""What a stage has done since it began: sums that only grow, for who looks in now and then."""

from dataclasses import dataclass


@dataclass(slots=True)
class Totals:
    """
    forwards  passes that were computed, those among them that were stopped half-way
    rows      that went into them
    seconds   that they took
    dropped   rows that came and had died before they were computed
    """

    forwards: int = 0
    rows: int = 0
    seconds: float = 0.0
    dropped: int = 0

    def computed(self, rows: int, seconds: float) -> None:
        """A pass is done."""
        self.forwards += 1
        self.rows += rows
        self.seconds += seconds
