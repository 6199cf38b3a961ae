"""Questions to a ring of real processes from inside this one: it has imported already what a
command would import for seconds."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from gardener.decoding.policy import Bounds
from gardener.holder.answer import Answer, collect
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.rings.cores import SPINS
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings


@dataclass(frozen=True)
class Question:
    """As `OpenRing.ask` takes it. `show` is given the text as it comes."""

    prompt: str
    new_tokens: int
    policy: str | None = None
    sampling: Sampling = GREEDY
    bounds: Bounds = field(default_factory=Bounds)
    show: Callable[[str], None] = lambda text: None


@contextmanager
def runner(settings: RingSettings) -> Iterator[asyncio.Runner]:
    """Runs what opens such a ring in this process, and leaves the process as it was."""
    threads = torch.get_num_threads()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GOMP_SPINCOUNT", SPINS)  # else a ring sets it for all that comes later
            with asyncio.Runner(loop_factory=settings.loop()) as made:
                yield made
    finally:
        torch.set_num_threads(threads)


def answers(settings: RingSettings, *questions: Question) -> list[Answer]:
    """What a ring that is opened for them answers, one after the other."""

    async def asked() -> list[Answer]:
        async with open_ring(settings) as ring:
            return [
                await collect(
                    ring.ask(
                        each.prompt,
                        max_new_tokens=each.new_tokens,
                        policy=each.policy,
                        sampling=each.sampling,
                        bounds=each.bounds,
                    ),
                    each.show,
                )
                for each in questions
            ]

    with runner(settings) as made:
        return made.run(asked())


def counts(answer: Answer) -> dict[str, Any]:
    """What an answer that is whole has cost, as a command prints it with --json."""
    assert answer.error is None
    found: dict[str, Any] = answer.figures.statistics()["counts"]
    return {**found, "named": {str(place): count for place, count in found["named"].items()}}
