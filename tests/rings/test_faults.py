"""Real nodes that are killed, cut off and stopped while two answers are written: both go on as if
nothing had happened. `python -m benchmarks.faults` does so hundreds of times, at random."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from asked import runner

from benchmarks.faults.nodes import READY, Nodes
from gardener.holder.session import Session
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.rings.open import open_ring
from gardener.rings.opened import OpenRing
from gardener.rings.settings import RingSettings

PROMPT = "Write a story about a gardener who teaches a robot to grow tomatoes."
HOW = (GREEDY, Sampling(temperature=1.0, seed=5))
NEW_TOKENS = 64


class Writing:
    """Answers under way, one for each of `HOW`."""

    def __init__(self, ring: OpenRing) -> None:
        self._more = asyncio.Event()
        self.sessions = [ring.ask(PROMPT, max_new_tokens=NEW_TOKENS, sampling=how) for how in HOW]
        self._tasks = [asyncio.create_task(self._read(session)) for session in self.sessions]

    async def reach(self, tokens: int) -> None:
        """Wait until each has so many."""
        while any(len(session.tokens) < tokens for session in self.sessions):
            self._more.clear()
            await self._more.wait()

    async def end(self) -> list[tuple[str, list[int]]]:
        """Texts and tokens."""
        texts = await asyncio.gather(*self._tasks)
        return list(zip(texts, [session.tokens for session in self.sessions], strict=True))

    async def _read(self, session: Session) -> str:
        text = ""
        async for piece in session:
            text += piece.text
            self._more.set()
        return text


async def killed(nodes: Nodes) -> None:
    """And started again."""
    await nodes.nodes[2].kill()
    await nodes.nodes[2].start()
    await nodes.nodes[2].until(READY)


async def cut(nodes: Nodes) -> None:
    """Between stages 1 and 2."""
    nodes.cables[1].reset()


async def stopped(nodes: Nodes) -> None:
    """Until the stage before has given it up."""
    nodes.nodes[3].signal(signal.SIGSTOP)
    await nodes.nodes[2].until("stage 3 .* went silent")
    nodes.nodes[3].signal(signal.SIGCONT)


FAULTS: tuple[tuple[int, Callable[[Nodes], Awaitable[None]]], ...] = (
    (10, killed),
    (25, cut),
    (40, stopped),
)
"""What happens after how many tokens."""


async def disturbed(nodes: Nodes, settings: RingSettings) -> list[str]:
    """What is said while all that happens to answers. They are compared with others of the ring."""
    said: list[str] = []
    async with open_ring(settings, said.append) as ring:
        right = await Writing(ring).end()
        writing = Writing(ring)
        for tokens, happens in FAULTS:
            await writing.reach(tokens)
            await happens(nodes)
        assert await writing.end() == right
    return said


def test_answers_go_on_whatever_is_lost() -> None:
    nodes = Nodes(3)
    settings = RingSettings(peer=nodes.peer, listen=nodes.listen)
    with runner(settings) as loop:
        try:
            loop.run(nodes.start())
            pids = {stage: node.pid for stage, node in nodes.nodes.items()}
            said = loop.run(disturbed(nodes, settings))
            whole = [line for line in said if line.startswith("the ring stands again after")]
            assert len(whole) == len(FAULTS), said
            assert all(node.alive for node in nodes.nodes.values())
            changed = {stage for stage, node in nodes.nodes.items() if node.pid != pids[stage]}
            assert changed == {2}
        finally:
            loop.run(nodes.close())
