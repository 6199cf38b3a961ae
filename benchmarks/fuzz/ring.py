"""A real ring in this process: a tiny random model in two stages, a relay on each of its links that
may meddle with what goes over it, and a holder that asks honestly.
"""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gardener.decoding.limits import Limits
from gardener.decoding.policy import Bounds, make
from gardener.draft.ngram import NGram
from gardener.holder.holder import Holder
from gardener.model.checkpoint.slices import Slice
from gardener.model.random.folder import write_folder
from gardener.net.address import Address
from gardener.protocol.messages import Card
from gardener.protocol.wire import LENGTH
from gardener.rings.equipment import holder_card
from gardener.runtime.trace import Trace
from gardener.runtime.worker import Worker
from gardener.stages.load import load_stage
from gardener.stages.measure import Measured
from gardener.stages.node import StageNode
from gardener.stages.start import card_of

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LAYERS, STAGES = 4, 2
KV_ROOM = 2**22
"""Bytes that keys and values may take at a stage: some thousands of tokens."""

PROMPT = (5, 6, 7, 5, 6, 7, 5, 6)
NEW_TOKENS = 8

Meddle = Callable[[bytes], list[bytes]]
"""Given a frame without its length, what goes on instead: whole frames, with theirs."""


def honest(content: bytes) -> list[bytes]:
    """Goes on as it is."""
    return [len(content).to_bytes(LENGTH, "big") + content]


def free_ports(count: int) -> list[int]:
    """Nobody listens there now."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


@dataclass
class Relay:
    """Passes on what comes to `port`, frame by frame, to `target` and back."""

    port: int
    target: int
    down: Meddle = honest  # of what the end that dialled says
    up: Meddle = honest
    _server: asyncio.Server | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def begin(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def end(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            other, onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        ways = (
            asyncio.ensure_future(_carry(reader, onward, lambda: self.down)),
            asyncio.ensure_future(_carry(other, writer, lambda: self.up)),
        )
        try:
            await asyncio.wait(ways)
        finally:
            for way in ways:
                way.cancel()
            writer.transport.abort()
            onward.transport.abort()


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, meddle: Callable[[], Meddle]
) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            size = int.from_bytes(await reader.readexactly(LENGTH), "big")
            for frame in meddle()(await reader.readexactly(size)):
                writer.write(frame)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()


class Ring:
    """The stages, which stand, and who they are. `said`: by them, the newest lines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        first, second, *relays, self.holder_port = free_ports(6)
        self.stage_ports = (first, second)
        self.relays = tuple(
            Relay(port, target)
            for port, target in zip(relays, (first, second, self.holder_port), strict=True)
        )
        """On the links to stage 1, to stage 2 and to the holder."""
        self.card: Card = holder_card(folder)
        self.said: list[str] = []
        self.nodes: list[StageNode] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._workers: list[Worker] = []

    async def begin(self) -> None:
        for relay in self.relays:
            await relay.begin()
        cut = (Slice(0, LAYERS // STAGES, LAYERS), Slice(LAYERS // STAGES, LAYERS, LAYERS))
        for number, held in enumerate(cut, 1):
            stage, worker = load_stage(self.folder, held), Worker(f"stage {number}")
            card = card_of(stage, number, UNMEASURED, KV_ROOM)
            node = StageNode(
                stage,
                card,
                worker,
                Trace(),
                listen_at=Address("127.0.0.1", self.stage_ports[number - 1]),
                peer=Address("127.0.0.1", self.relays[number].port),
                patience=60.0,
                say=self.said.append,
            )
            self._workers.append(worker)
            self.nodes.append(node)
            self.tasks.append(asyncio.create_task(node.run()))

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        for relay in self.relays:
            await relay.end()
        for worker in self._workers:
            worker.close()

    def holder(self, patience: float = 20.0, stall: float = 20.0) -> Holder:
        """It comes over the relays."""
        return Holder(
            self.card,
            [NGram()],
            Trace(),
            listen_at=Address("127.0.0.1", self.holder_port),
            peer=Address("127.0.0.1", self.relays[0].port),
            patience=patience,
            say=lambda line: None,
            stall=stall,
            patience_lost=stall,
        )

    async def ask(self, patience: float = 20.0) -> list[int]:
        """What the ring writes, asked by a holder that comes and goes."""
        holder = self.holder(patience)
        try:
            await holder.connect()
            return await write(holder)
        finally:
            await holder.close()


async def write(holder: Holder, prompt: tuple[int, ...] = PROMPT) -> list[int]:
    """One request."""
    policy = make("gardener", Bounds(rows=4, window=2, floor=0.05))
    session = holder.open(prompt, policy, Limits(NEW_TOKENS, 200), chunk=3)
    return [token async for piece in session for token in piece.tokens]


UNMEASURED = Measured(((1, 1e-3), (8, 2e-3)), (), 0, 8, 0.0)
"""What a pass takes, about."""


@asynccontextmanager
async def ring() -> AsyncIterator[Ring]:
    """One that stands."""
    with tempfile.TemporaryDirectory(prefix="gardener-fuzz-") as folder:
        where = Path(folder) / "model"
        write_folder(CONFIG, where, dtype="float32")
        made = Ring(where)
        await made.begin()
        try:
            yield made
        finally:
            await made.end()
