"""Rings of real processes on the stand-in for a GPU: `gardener verify` with stages and draft head
there. All texts must be the same, graphs must have been launched, and nothing been illegal."""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

VERIFY = "gardener verify --local 2 --device cuda --dtype bfloat16 --patience 500 --count 1"
RINGS = {
    "bfloat16": "--draft-device cuda --max-new-tokens 16",
    "int4": "--quant int4 --max-new-tokens 8 --policies gardener,alternating,chunked",
}
SAME = "0 tied, 0 different"


def counts(folder: Path) -> tuple[int, Counter[str]]:
    """How many processes wrote something, and the sum of it."""
    total: Counter[str] = Counter()
    files = [*folder.iterdir()]
    for file in files:
        for part in file.read_text().split():
            name, _, number = part.partition("=")
            total[name] += int(number)
    return len(files), total


def complaint(status: int, output: str, processes: int, total: Counter[str]) -> str | None:
    """What is wrong with a ring, if anything is."""
    if status:
        return f"it ended with status {status}"
    if SAME not in output:
        return "texts differ"
    if "one by one" in output or not total["launched"]:
        return "graphs were given up"
    if processes < 2:
        return "only one process computed on the device"
    if total["illegal"] or total["unseen"]:
        return "calls were illegal"
    return None


def verify(name: str, options: str) -> bool:
    """Whether such a ring is in order. Says what it did."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [Path(__file__).parent / "run", *f"{VERIFY} {options}".split()],
            env={**os.environ, "STAND_IN_COUNTS": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes, total = counts(Path(folder))
    wrong = complaint(done.returncode, done.stdout, processes, total)
    if wrong:
        sys.stdout.write(done.stdout)
    told = ", ".join(f"{number} {what}" for what, number in total.items())
    lines = [line for line in done.stdout.splitlines() if "texts against" in line]
    sys.stdout.write(f"a ring in {name}: {wrong or 'in order'}, {time.monotonic() - began:.0f} s\n")
    sys.stdout.write("".join(f"  {line}\n" for line in [*lines, f"{processes} processes: {told}"]))
    sys.stdout.flush()
    return wrong is None


if __name__ == "__main__":
    in_order = [verify(name, options) for name, options in RINGS.items()]
    sys.exit(not all(in_order))
