"""All that a run has found, kept in a file from the first part on; and what was aimed at."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from math import inf
from pathlib import Path
from typing import Any

from benchmarks.accelerator.curve import WITHIN, Beside
from benchmarks.accelerator.rings import Evaluated, Verified
from benchmarks.accelerator.stage import Cell, Found

FEW = (1, 2, 4, 8, 16)
"""Rows of a pass that should hardly take longer than that of one."""

TEXTS = (16, 1024, 4096)
"""Lengths of the text that the aims are about; the bound is, only at the first."""

BOUND, INT4, GAIN = 1.7, 0.6, 1.5
"""Aims for an H100 and layers of Llama-2-7B shape: bfloat16 in times the bound, int4 in times
bfloat16, and `gardener` in times plain."""


SELDOM = 50
"""Sizes of which there was not one pass in so many do not count beside the curve."""


@dataclass(frozen=True)
class Aim:
    """What was found of what was aimed at. found: None where nothing was measured. met: None where
    that cannot be said: nothing speaks against it, but not all of it was measured."""

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
        stages = (self._of_bound(), self._of_int4())
        return [*self._of_texts(), *stages, *self._of_gain(), *self._of_curve()]

    def _of_texts(self) -> list[Aim]:
        aim = "all the same, or near ties in a ring that says so"
        if not self.verified:
            return [Aim("texts", aim, None, None)]
        return [_of_one(each, aim) for each in self.verified]

    def _cells(self, kind: str) -> dict[tuple[int, int], Cell]:
        """Those for which graphs were asked, of few rows."""
        return {
            (cell.rows, cell.text): cell
            for cell in self.stage.cells
            if (cell.kind, cell.asked) == (kind, True) and cell.rows in FEW
        }

    def _of_bound(self) -> Aim:
        what = f"bfloat16, 1 to {FEW[-1]} rows after {TEXTS[0]} tokens: times the bound"
        cells = {at: cell for at, cell in self._cells("bfloat16").items() if at[1] == TEXTS[0]}
        ratios = {at: self.stage.ratio(cell) for at, cell in cells.items()}
        return _at_most(what, BOUND, ratios, TEXTS[:1], _slow(cells))

    def _of_int4(self) -> Aim:
        what = f"int4, 1 to {FEW[-1]} rows after all texts: times bfloat16"
        wide = self._cells("bfloat16")
        few = {at: cell for at, cell in self._cells("int4:bfloat16").items() if at in wide}
        ratios = {at: cell.ms / wide[at].ms for at, cell in few.items()}
        slow = _slow(few) + _slow({at: wide[at] for at in few})
        return _at_most(what, INT4, ratios, TEXTS, slow)

    def _of_gain(self) -> list[Aim]:
        """Of each ring with graphs: plain decoding without them is no measure."""
        own = [each for each in self.evaluated if each.ring.graphs]
        if not own:
            return [Aim("gardener: times plain", f"at least {GAIN}", None, None)]
        return [_gain(each) for each in own]

    def _of_curve(self) -> list[Aim]:
        aim = f"within {WITHIN:.0%}"
        if not self.curve:
            return [Aim("passes of a ring beside the curve of its stages", aim, None, None)]
        found = []
        for ring in dict.fromkeys(ring for ring, _ in self.curve):
            own = [each for name, each in self.curve if name == ring]
            whole = sum(each.passes for each in own)
            near = sum(each.passes for each in own if each.within)
            many = [each for each in own if each.passes * SELDOM >= whole]
            off = max((abs(each.middle - 1) for each in many), default=inf)
            told = (
                f"{near / whole:.0%} of {whole} passes are; medians off by {off:.0%} at most, but "
                f"for {len(own) - len(many)} of {len(own)} sizes with less than 1 pass in {SELDOM}"
            )
            found.append(Aim(f"passes beside the curve, {ring}", aim, told, off <= WITHIN))
        return found


def _of_one(found: Verified, aim: str) -> Aim:
    """The texts of one ring."""
    told = f"{found.same} the same, {found.tie} tied, {found.different} different"
    if found.tie and not found.inexact and not found.late:
        told += "; the ring does not say that ties may differ"
    if found.gave_up:
        told += "; graphs failed"
    if found.error:
        told += "; not all of them"
    met: bool | None = not found.different and (found.inexact or not found.tie)
    if found.late:  # what the ring says of itself comes last
        met = False if found.different else None
    elif found.error or not found.same + found.tie:
        met = False
    return Aim(f"texts, {found.ring.kind}", aim, told, met)


def _gain(found: Evaluated) -> Aim:
    """Of one ring."""
    what, aim = f"gardener, {found.name}: times plain", f"at least {GAIN}"
    gain = found.gain("gardener")
    if gain is None:
        return Aim(what, aim, f"nothing: {found.error}" if found.error else None, None)
    of = f" of {found.wanted}" if found.wanted else ""
    told = f"{gain:.2f}, the median of {found.prompts}{of} prompts"
    if found.differences:
        told += f"; {found.different} texts differ, and {found.near_ties} near ties"
    if found.error:
        told += "; cut off"
    return Aim(what, aim, told, gain >= GAIN and not found.different and found.whole)


def _slow(cells: dict[tuple[int, int], Cell]) -> int:
    """How many of them were not replayed."""
    return sum(not cell.graphs for cell in cells.values())


def _at_most(
    what: str, most: float, found: dict[tuple[int, int], float], texts: Sequence[int], slow: int
) -> Aim:
    """`found`: by rows and text. `texts`: after which all of `FEW` are wanted. `slow`: cells that
    were not replayed."""
    aim = f"at most {most}"
    if not found:
        return Aim(what, aim, None, None)
    above = [rows for rows in FEW if any(found.get((rows, text), 0) > most for text in texts)]
    lacking = [rows for rows in FEW if any((rows, text) not in found for text in texts)]
    holds = list(takewhile(lambda rows: rows not in above and rows not in lacking, FEW))
    told = [f"{min(found.values()):.2f} to {max(found.values()):.2f} in {len(found)} cells"]
    told.append(f"it holds up to {holds[-1]} rows" if holds else "it holds for no rows from 1 on")
    if above:
        told.append(f"above it: {_listed(above)} rows")
    if lacking:
        told.append(f"not all measured: {_listed(lacking)} rows")
    if slow:
        told.append(f"{slow} passes without graphs")
    return Aim(what, aim, "; ".join(told), False if above else None if lacking else True)


def _listed(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows))
