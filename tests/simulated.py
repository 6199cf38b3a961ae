"""Simulated rings for tests: a made-up recording, and a profile of round figures."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import fakes
import torch

from gardener.decoding.limits import Limits
from gardener.decoding.policy import Bounds, make
from gardener.draft.drafter import Drafter
from gardener.draft.ngram import NGram
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.loop import Loop
from gardener.rings.simulate.network import SimulatedTransport
from gardener.rings.simulate.profile import LinkTerms, Profile
from gardener.rings.simulate.recording import Recording
from gardener.rings.simulate.ring import SimulatedModel, SimulatedRing, simulated_ring

T = TypeVar("T")

PROMPT = (1, 2, 3, 1, 2, 3, 1)
TOKENS = 32
LAYERS = 16
CONTEXT = 512
MODEL = SimulatedModel(LAYERS, 1)

PROFILE = Profile(
    model=((1, 160.0), (16, 160.0), (32, 320.0)),
    row_bytes=4,
    link=LinkTerms(delay_ms=1.0, bandwidth_mbit=1000.0),
    drafter=((1, 5.0),),
    name="round",
)


def written(prompt: Sequence[int] = PROMPT, new_tokens: int = TOKENS) -> list[int]:
    """What the made-up target writes."""
    return fakes.plain(prompt, Limits(new_tokens, CONTEXT))[0]


def recorded(
    prompt: Sequence[int] = PROMPT, new_tokens: int = TOKENS, taps: int = 1, width: int = 1
) -> Recording:
    """Features tell place, tap and column."""
    tokens = (*prompt, *written(prompt, new_tokens + 1))
    features = torch.arange(len(tokens) * taps * width, dtype=torch.float32)
    return Recording(tokens, len(prompt), features.reshape(len(tokens), taps * width))


def library() -> Library:
    return Library([recorded()], (LAYERS,))


def run(scenario: Callable[[], Awaitable[T]], seed: int = 0) -> T:
    """To its end, under a virtual clock; fails if it leaves a task or an unreported error."""
    complaints: list[dict[str, Any]] = []

    async def main() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        result = await scenario()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    with asyncio.Runner(loop_factory=lambda: Loop(seed)) as runner:
        done = runner.run(main())
    assert complaints == []
    return done


def with_ring(
    scenario: Callable[[SimulatedRing], Awaitable[T]],
    stages: int,
    profile: Profile = PROFILE,
    *,
    held: Library | None = None,
    model: SimulatedModel = MODEL,
    drafters: Sequence[Drafter] | None = None,
    seed: int = 0,
) -> T:
    """The scenario with a ring that stands."""

    async def main() -> T:
        async with simulated_ring(
            stages,
            profile,
            library() if held is None else held,
            model,
            [NGram()] if drafters is None else drafters,
        ) as ring:
            return await scenario(ring)

    return run(main, seed)


async def write(
    ring: SimulatedRing,
    policy: str = "gardener",
    new_tokens: int = TOKENS,
    prompt: Sequence[int] = PROMPT,
    text: list[int] | None = None,
) -> list[int]:
    """One answer, in pieces of the prompt; goes into `text` as it comes."""
    text = [] if text is None else text
    limits = Limits(new_tokens, CONTEXT)
    chosen = make(policy, Bounds(floor=0.05))
    async for piece in ring.holder.open(prompt, chosen, limits, chunk=3):
        text += piece.tokens
    return text


def end_before(ring: SimulatedRing, stage: int) -> SimulatedTransport:
    """The end that dialled, of the connection into a stage."""
    there = ("simulated", 7000 + stage)
    return next(end for end in ring.network.ends if end.get_extra_info("peername") == there)
