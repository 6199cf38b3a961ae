"""All that a run has found, kept in a file from the first part on; and what was aimed at."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.accelerator.curve import WITHIN, Beside
from benchmarks.accelerator.rings import Evaluated, Verified
from benchmarks.accelerator.stage import Cell, Found

FEW = 16
"""Rows up to which a pass should hardly take longer than that of one."""

BOUND, INT4, GAIN = 1.7, 0.6, 1.5
"""Aims for an H100: bfloat16 in times the bound, int4 in times bfloat16, and `gardener` in times
plain."""


@dataclass(frozen=True)
class Aim:
    """What was found of what was aimed at. found: None where nothing was measured."""

    what: str
    aim: str
    found: str | None
    met: bool | None


@dataclass
class Report:
    """Parts that were not run are empty. `seconds` by part, `left_out` by part: sentences."""

    about: dict[str, Any]
    path: Path | None = None
    stage: Found = field(default_factory=Found)
    verified: list[Verified] = field(default_factory=list)
    evaluated: list[Evaluated] = field(default_factory=list)
    curve: list[tuple[str, Beside]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def save(self) -> None:
        """As it is now: whole, or as it was before."""
        if self.path is None:
            return
        draft = self.path.with_name(f"{self.path.name}.part")
        draft.write_text(json.dumps(self.as_dict(), indent=1))
        os.replace(draft, self.path)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        beside = [
            {"ring": ring, **asdict(each), "ratio": each.ratio, "within": each.within}
            for ring, each in self.curve
        ]
        return {
            **self.about,
            "seconds": self.seconds,
            "left_out": self.left_out,
            "aims": [asdict(each) for each in self.aims()],
            "stage": self.stage.as_dict(),
            "verify": [asdict(each) for each in self.verified],
            "speed": [each.as_dict() for each in self.evaluated],
            "curve": beside,
        }

    def aims(self) -> list[Aim]:
        """All of them, met or not."""
        figures = (self._of_bound(), self._of_int4(), self._of_gain())
        return [*self._of_texts(), *figures, *self._of_curve()]

    def _of_texts(self) -> list[Aim]:
        aim = "all the same, or near ties in a ring that says so"
        if not self.verified:
            return [Aim("texts", aim, None, None)]
        return [
            Aim(
                f"texts, {each.ring.kind}",
                aim,
                f"{each.same} the same, {each.tie} tied, {each.different} different",
                not each.different and not each.error and each.same + each.tie > 0,
            )
            for each in self.verified
        ]

    def _cells(self, kind: str) -> dict[tuple[int, int], Cell]:
        """Those with graphs of up to `FEW` rows."""
        return {
            (cell.rows, cell.text): cell
            for cell in self.stage.cells
            if (cell.kind, cell.graphs) == (kind, True) and cell.rows <= FEW
        }

    def _of_bound(self) -> Aim:
        what = f"bfloat16, 1 to {FEW} rows after the shortest text: times the bound"
        cells = self._cells("bfloat16")
        shortest = min((text for _, text in cells), default=0)
        ratios = {at: cell.ratio for at, cell in cells.items() if at[1] == shortest}
        return _at_most(what, BOUND, ratios)

    def _of_int4(self) -> Aim:
        what = f"int4, 1 to {FEW} rows: times bfloat16"
        wide = self._cells("bfloat16")
        few = self._cells("int4:bfloat16")
        return _at_most(what, INT4, {at: few[at].ms / wide[at].ms for at in few if at in wide})

    def _of_gain(self) -> Aim:
        gains = [gain for each in self.evaluated if (gain := each.gain("gardener")) is not None]
        what, aim = "gardener, the best ring: times plain", f"at least {GAIN}"
        if not gains:
            return Aim(what, aim, None, None)
        return Aim(what, aim, f"{max(gains):.2f}", max(gains) >= GAIN)

    def _of_curve(self) -> list[Aim]:
        aim = f"within {WITHIN:.0%}"
        if not self.curve:
            return [Aim("passes of a ring beside the curve of its stages", aim, None, None)]
        found = []
        for ring in dict.fromkeys(ring for ring, _ in self.curve):
            own = [each for name, each in self.curve if name == ring]
            whole = sum(each.passes for each in own)
            near = sum(each.passes for each in own if each.within)
            off = max(abs(each.middle - 1) for each in own if each.passes * 50 >= whole)
            told = f"{near / whole:.0%} of {whole} passes are; off by {off:.0%} at most"
            found.append(Aim(f"passes beside the curve, {ring}", aim, told, off <= WITHIN))
        return found


def _at_most(what: str, most: float, found: dict[tuple[int, int], float]) -> Aim:
    """`found`: by rows and text."""
    aim = f"at most {most}"
    if not found:
        return Aim(what, aim, None, None)
    above = sorted({rows for (rows, _), ratio in found.items() if ratio > most})
    told = f"{min(found.values()):.2f} to {max(found.values()):.2f}"
    if above:
        told += f"; above it: {', '.join(map(str, above))} rows"
    return Aim(what, aim, told, not above)
