"""Loading and measuring, one process at a time."""

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from gardener.stages import startup_lock as turns
from gardener.stages.startup_lock import in_turn

HOLDS = """
import sys, time
from gardener.stages.startup_lock import in_turn
def work():
    begin = time.monotonic()
    print("began", flush=True)
    time.sleep(float(sys.argv[1]))
    print(begin, time.monotonic(), flush=True)
in_turn("stage 7", lambda whom: print("waits for", whom, flush=True), work)
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "cache"))


def start(seconds: float, folder: Path | None = None) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLDS, str(seconds)]
    private = os.environ if folder is None else {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=private)


def at_work(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"


def alone(whom: str) -> None:
    raise AssertionError(f"there is nobody to wait for, not {whom!r}")


def test_it_returns_and_raises_what_the_work_does() -> None:
    assert in_turn("stage 1", alone, lambda: divmod(7, 2)) == (3, 1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            in_turn("stage 1", alone, lambda: divmod(1, 0))


def test_processes_take_turns(tmp_path: Path) -> None:
    """Also those of which each has a /tmp of its own, as services and containers do."""
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    running = [start(0.2, folder) for folder in folders]
    told = [process.communicate()[0].splitlines()[-1].split() for process in running]
    spans = sorted((float(begin), float(end)) for begin, end in told)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.1)
    holder = start(60.0)
    try:
        at_work(holder)
        whom: list[str] = []
        assert in_turn("stage 1", whom.append, time.monotonic) > 0
        assert whom == ["stage 7"]
    finally:
        holder.kill()
        holder.communicate()


def test_one_that_was_killed_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 3600.0)
    holder = start(60.0)
    at_work(holder)
    holder.kill()
    holder.communicate()
    assert in_turn("stage 1", alone, lambda: 3) == 3


def test_a_folder_without_locks_is_no_reason_not_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARDENER_HOME", "/dev/null")
    assert in_turn("stage 1", alone, lambda: 3) == 3
