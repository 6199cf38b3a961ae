"""The wall clock may jump, as when a machine without a battery hears of the time: what measures,
measures by another clock."""

import re
import time
from pathlib import Path

import pytest
from loopback import holding, ring, run, truth, write

import gardener

DATES = {
    *("serve/responses.py", "serve/server.py", "watch/record.py", "cli/evaluate.py"),
    *("keys/mint.py", "net/security.py", "net/carrier.py", "cluster/doctor/own_keys.py"),
    *("keys/folder.py", "cluster/doctor/secured.py", "runtime/clock.py", "net/look.py"),
}
"""Files in which a date is meant: when an answer was made, what a folder is called; until when a
certificate is valid; what time a machine says it is, where those of several are compared."""


def test_a_clock_that_jumps_by_a_day_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    day, start, asked = 86_400.0, time.time(), 0

    def jumping() -> float:
        nonlocal asked
        asked += 1
        return start + (day if asked % 2 else -day)

    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            monkeypatch.setattr("time.time", jumping)
            for _ in range(3):
                time.time()
                assert await write(holder) == truth()
            links = [made.seats[1].node.upstream, made.seats[1].node.downstream]
            assert all(link is not None and link.ended is None for link in links)
            assert not [line for line in made.said if "lost" in line]

    run(scenario)


def test_nothing_is_measured_by_the_wall_clock() -> None:
    package = Path(gardener.__file__).parent
    wall = re.compile(r"\btime\.time\(|\bdatetime\.(utc)?now\(|\btime\.time\b(?!\()")
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if wall.search(path.read_text(encoding="utf-8"))
    }
    assert found <= DATES
