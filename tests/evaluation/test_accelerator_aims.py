"""What the benchmark of stages on a GPU says of its aims, and that it never says too much."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.accelerator.curve import Beside
from benchmarks.accelerator.report import TEXTS, Aim, Report
from benchmarks.accelerator.rings import (
    Evaluated,
    Ring,
    Verified,
)
from benchmarks.accelerator.stage import (
    Cell,
)
from benchmarks.accelerator.tables import show

SPEED = 3e12
"""Bytes per second of a device; cells are of a stage that it reads in a millisecond."""


def cell(kind: str, rows: int, ms: float, text: int = 16, graphs: bool = True) -> Cell:
    return Cell(kind, True, graphs, rows, text, SPEED / 1e3, 0, ms, ms, ms, ms, 10)


def evaluated(ring: Ring, gain: float, prompts: int = 12, error: str = "") -> Evaluated:
    figures = {"gardener": {"speedup": {"plain": {"median": gain}}}}
    return Evaluated(ring, 1.0, prompts, 12, figures, error=error)


def measured(*cells: Cell) -> Report:
    report = Report({})
    report.stage.read({"device": "cuda", "bytes_per_second": SPEED})
    report.stage.cells = list(cells)
    return report


def aim(report: Report, what: str) -> Aim:
    """The only one whose name begins so."""
    (found,) = (each for each in report.aims() if each.what.startswith(what))
    return found


def test_aims_are_met_missed_or_not_measured(tmp_path: Path) -> None:
    empty = Report({})
    assert {aim.met for aim in empty.aims()} == {None}
    report = measured(
        *(cell("bfloat16", rows, 1.6) for rows in (1, 2, 4, 8, 16)),
        cell("bfloat16", 32, 9.0),  # more rows than the aim is about
        cell("bfloat16", 16, 9.0, text=4096),  # and a longer text
        cell("int4:bfloat16", 1, 0.6),
        cell("int4:bfloat16", 16, 1.5, graphs=False),
    )
    report.path = tmp_path / "found.json"
    difference = {"policy": "serial", "position": 3, "prompt": 1, "outcome": "tie", "gap": 0.01}
    tied = Verified(Ring("float16"), 1.0, 107, 1, 0, "near ties may differ: so", [difference])
    exact = replace(tied, ring=Ring("float32"), exactness="the ring is exact: so")
    report.verified = [tied, replace(tied, ring=Ring("bfloat16"), different=1), exact]
    report.evaluated = [evaluated(Ring("bfloat16"), 1.4)]
    assert [aim.met for aim in report.aims()] == [True, False, False, True, False, False, None]
    report.save()
    kept = json.loads((tmp_path / "found.json").read_text())
    assert [each["met"] for each in kept["aims"]] == [aim.met for aim in report.aims()]
    assert kept["stage"]["cells"][0]["ratio"] == pytest.approx(1.6)
    console = Console(width=170, record=True, file=StringIO())
    show(report, console)
    told = console.export_text()
    assert "float16: serial left plain at token 3 of prompt 1, tie" in told
    assert "1.60 (1.60) 1.60" in told
    assert "int4:bfloat16, graphs not used" in told
    assert "12 of 12" in told


def test_texts_for_which_there_was_no_time_say_nothing_unless_one_differs() -> None:
    part = Verified(Ring("float16"), 49.0, same=3, tie=1, error="it was not done", late=True)
    report = Report({})
    for found, met in (
        (part, None),
        (replace(part, different=1), False),
        (replace(part, late=False), False),  # it failed
    ):
        report.verified = [found]
        said = aim(report, "texts")
        assert said.met is met
        assert "; not all of them" in (said.found or "")


def test_an_aim_names_the_rows_for_which_it_holds() -> None:
    one = aim(measured(cell("bfloat16", 1, 1.6)), "bfloat16")
    assert one.met is None  # nothing speaks against it, but that is one row
    assert "in 1 cells; it holds up to 1 rows; not all measured: 2, 4, 8, 16 rows" in str(one.found)
    times = {1: 0.3, 2: 0.5, 4: 0.7, 8: 0.5, 16: 1.2}
    whole = measured(
        *(cell("bfloat16", rows, 1.0, text) for rows in times for text in TEXTS),
        *(cell("int4:bfloat16", rows, ms, text) for rows, ms in times.items() for text in TEXTS),
    )
    few = aim(whole, "int4")
    assert few.met is False
    assert few.found == ("0.30 to 1.20 in 15 cells; it holds up to 2 rows; above it: 4, 16 rows")
    whole.stage.cells[-15:] = [replace(each, ms=0.6) for each in whole.stage.cells[-15:]]
    assert aim(whole, "int4").met
    whole.stage.cells[0] = replace(whole.stage.cells[0], graphs=False)
    assert "1 passes without graphs" in str(aim(whole, "int4").found)


def test_the_best_ring_does_not_speak_for_the_others() -> None:
    report = Report({})
    good = Ring("bfloat16")
    differ = evaluated(Ring("float32"), 1.9)
    differ.differences, differ.near_ties = [{"policy": "serial"}], 0
    report.evaluated = [
        evaluated(good, 1.6),
        evaluated(replace(good, draft_device="cuda"), 1.1),
        evaluated(replace(good, graphs=False), 1.9),  # beside a slow plain decoding
        differ,
        evaluated(Ring("int4:bfloat16"), 1.9, 3, "it was not done after 48 s"),
        evaluated(Ring("float16"), 1.9, 11),
    ]
    gains = [each for each in report.aims() if each.what.startswith("gardener")]
    assert [each.met for each in gains] == [True, False, False, False, False]
    assert "1.90, the median of 3 of 12 prompts; cut off" in str(gains[3].found)
    assert "1 texts differ" in str(gains[2].found)
    report.evaluated = [replace(report.evaluated[0], gave_up=True)]
    assert "graphs failed" in aim(report, "gardener").what


def test_sizes_that_are_seldom_do_not_hide_behind_others() -> None:
    report = Report({})
    seldom = [Beside("gardener", 1, rows, 1, 2.0, 1.0, 2.0) for rows in range(60)]
    report.curve = [("a", each) for each in seldom]
    assert aim(report, "passes").met is False
    report.curve.append(("a", Beside("plain", 1, 1, 9000, 1.0, 1.0, 1.0)))
    assert aim(report, "passes").met
    assert "for 60 of 61 sizes" in str(aim(report, "passes").found)
