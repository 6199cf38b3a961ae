"""The cores of this machine, and how the stages of a local ring share them."""

import os

SPARE = 1
"""Cores that no stage of a local ring takes with the others. Its threads wait for each other many
times in every layer: where one of them shares a core with another busy process, all of them wait
until that has had its turn, and a pass takes ten times as long."""

SPINS = "1000"
"""Turns of a loop for which an idle thread of OpenMP looks for its next part of a matrix
product."""

FEW_SPINS = "100"
"""The same for a holder that starts no stages: one of a ring may be on this machine all the same,
and its cores are worth more to it than a wake-up costs a drafter."""


def cores() -> int:
    """The number of cores that this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return count or 1


def threads_for(stages: int, spare: int = 0) -> int:
    """Threads for each of `stages` processes that share this machine's cores. `spare`: cores that
    none of them may use alone."""
    count = cores()
    return max(1, min(count // stages, count - spare))


def crowded(stages: int) -> bool:
    """Whether `stages` processes and a drafter have fewer cores on this machine than each would
    need. What one of them computes in its slack, another one then lacks."""
    return threads_for(1) <= stages


def share_cores(spins: str = SPINS) -> None:
    """Have the threads of this process and of its children go to sleep soon after a pass; takes
    effect before torch is imported, and leaves what the user has set.

    By default GNU's OpenMP has them look for work for milliseconds, on cores that the next stage
    needs, or the thread that they wait for. If they never looked, every matrix product would begin
    by waking them up.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", spins)
