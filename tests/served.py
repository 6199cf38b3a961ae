"""The server's application over a ring of loopback stages, all in this process.

The model has words w0 to w60 and writes what `fakes.target` says, so w0 to w4. Its prompts are raw
text here, or chats of which the template keeps the contents alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from threading import Event
from typing import Any, cast

import loopback
import tiny
from asgi import Call
from starlette.applications import Starlette

from gardener.holder.prompter import Prompter
from gardener.protocol.sampling import Sampling
from gardener.rings.opened import OpenRing
from gardener.rings.settings import RingSettings
from gardener.serve.app import make_app
from gardener.serve.house import House
from gardener.serve.keeper import RingKeeper
from gardener.serve.settings import ServeSettings

MODEL = "tiny"
PROMPT = "w1 w2 w3 w1"
CHAT = [{"role": "user", "content": PROMPT}]
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@cache
def folder() -> Path:
    """Of the tiny model."""
    made = Path(mkdtemp(prefix="gardener-tests-"))
    tiny.make("llama", made, bos_token_id=59, eos_token_id=60)  # it writes neither
    tiny.name_words(made, TEMPLATE)
    return made


def assert_true(found: bool) -> None:
    assert found


@dataclass
class Kept:
    """A keeper whose ring just stands, or does not."""

    ring: OpenRing | None = None
    why: str = "stage 2 is missing"
    usual: Sampling = field(default_factory=lambda: Sampling(temperature=1.0))


@dataclass
class Served:
    """The application, and what is below it."""

    app: Starlette
    house: House
    keeper: Kept
    nodes: loopback.Ring
    calls: list[Call] = field(default_factory=list)

    @property
    def ring(self) -> OpenRing:
        assert self.keeper.ring is not None
        return self.keeper.ring

    def call(self, method: str, path: str, body: Any = b"", **headers: str) -> Call:
        """Begin a request; header names have _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.calls.append(Call(self.app, method, path, body, named))
        return self.calls[-1]

    async def get(self, path: str, **headers: str) -> Call:
        """A request and its response."""
        return await self.call("GET", path, **headers).end()

    def complete(self, **body: Any) -> Call:
        """Begin a raw completion, greedily unless it says otherwise."""
        asked = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 8, **body}
        return self.call("POST", "/v1/completions", asked)

    def chat(self, **body: Any) -> Call:
        """The same in a chat."""
        asked = {"model": MODEL, "messages": CHAT, "temperature": 0, "max_tokens": 8, **body}
        return self.call("POST", "/v1/chat/completions", asked)

    async def text(self, new_tokens: int = 8) -> str:
        """What the ring writes after `PROMPT`."""
        async with self.ring.ask(PROMPT, raw=True, max_new_tokens=new_tokens) as session:
            return await session.read()

    def hold(self) -> Callable[[], None]:
        """Let no stage compute until what this gives is called; then all goes on."""
        gate = Event()
        self.nodes.seats[1].stage.trouble = lambda: assert_true(gate.wait(20))
        return gate.set

    async def freed(self) -> bool:
        """Whether within a second no request is left, here and at the stages."""
        for _ in range(100):
            if not self.ring.holder.admission.sessions and self.nodes.quiet():
                return True
            await asyncio.sleep(0.01)
        return False


@asynccontextmanager
async def served(stands: bool = True, **settings: Any) -> AsyncIterator[Served]:
    """`settings`: of the server, and `max_requests`."""
    most = settings.pop("max_requests", 4)
    async with loopback.ring(2) as nodes, loopback.holding(nodes) as holder:
        holder.admission.max_requests = most
        ring_settings = RingSettings(peer=str(nodes.address(1)))
        ring = OpenRing(ring_settings, holder, folder(), Prompter(folder()))
        keeper = Kept(ring if stands else None)
        given = ServeSettings(**settings)
        holder.admission.max_waiting = given.queue
        house = House(given, cast(RingKeeper, keeper), MODEL, 0)
        made = Served(make_app(house), house, keeper, nodes)
        try:
            yield made
        finally:
            for call in made.calls:
                call.task.cancel()
            await asyncio.gather(*(call.task for call in made.calls), return_exceptions=True)
