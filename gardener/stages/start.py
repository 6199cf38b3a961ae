"""A stage from its settings: loaded, measured, and served to the ring. Imports torch."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import gardener
from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.parts import check_stages
from gardener.model.checkpoint.quantised import agreed_quant, stored_quant
from gardener.model.checkpoint.resolve import resolve
from gardener.model.checkpoint.slices import Slice, parse_range
from gardener.model.loader import free_memory, stored_slice
from gardener.model.quants import AUTO
from gardener.net.address import check_free, parse, parse_peer
from gardener.net.security import secure
from gardener.protocol.cards import arithmetic, exactness, memory_problem
from gardener.protocol.certificates import name_of
from gardener.protocol.messages import Card, CostPoints, microseconds, nanoseconds
from gardener.runtime.memory import kept
from gardener.runtime.trace import Trace
from gardener.runtime.wording import span
from gardener.runtime.worker import Worker
from gardener.stages.executor import Executor
from gardener.stages.load import load_stage
from gardener.stages.measure import Measured, Points, measure
from gardener.stages.node import StageNode
from gardener.stages.quant import decided
from gardener.stages.startup_lock import in_turn

CLOSING = 1.0
"""Seconds that a pass which is being computed at the end has to finish."""

MOST_KV_MEMORY = 2**20
"""GiB for keys and values, so that the bytes are a number that a card can name."""


@dataclass(frozen=True)
class NodeSettings:
    """Where one stage stands and what it holds. Raises UserError for memory that cannot be.

    kv_memory  GiB that keys and values may take; None: half of what is free once it is loaded
    context    most tokens of one request, prompt and answer together; None: what memory takes
    beside     stages on this machine, this one among them, that share all that
    keys       folder of the keys with which links are secured
    insecure   without keys, links may leave this machine
    """

    stage: int
    peer: str
    listen: str
    model: str
    revision: str | None
    stages: int | None
    layers: str | None
    dtype: str
    device: str
    threads: int
    quant: str
    patience: float
    quant_head: str = AUTO
    kv_memory: float | None = None
    context: int | None = None
    beside: int = 1
    keys: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.kv_memory is not None and not 0 < self.kv_memory <= MOST_KV_MEMORY:
            raise UserError(
                f"kv_memory is {self.kv_memory:g} GiB, and must be more than 0 and at most "
                f"{MOST_KV_MEMORY}: leave it out for half of what is free"
            )


async def serve(
    settings: NodeSettings,
    say: Callable[[str], None],
    watch: Callable[[StageNode], None] = lambda node: None,
) -> None:
    """Load the slice, then serve until cancelled. `say` is given lines for the user, `watch` the
    node. Raises UserError or PeerLost."""
    listen_at, peer = parse(settings.listen), parse_peer(settings.peer)
    keys = secure(
        settings.keys,
        settings.insecure,
        name_of(settings.stage),
        listen_at=listen_at,
        peer=peer,
        say=say,
    )
    check_free(listen_at, f"stage {settings.stage - 1}" if settings.stage > 1 else "the holder")
    worker = Worker("stage")
    try:
        stage, loaded, measured = await worker.run(in_turn, ready, settings, say)
        room = kv_room(stage, settings)
        card = card_of(stage, settings.stage, measured, room, settings.context)
        if settings.context and (problem := memory_problem(settings.context, [card])):
            raise UserError(problem)
        say(
            f"{span(card.first, card.end)} of {card.layers} on {settings.device} in "
            f"{arithmetic(card)}, {stage.memory / 1e6:.0f} MB, loaded in {loaded:.1f} s"
        )
        say(exactness([card], "this stage"))
        say(str(measured))
        say(f"keys and values may take {room / 2**30:.3g} GiB: {room // stage.kv_slot} tokens")
        this = StageNode(
            stage,
            card,
            worker,
            Trace(),
            listen_at=listen_at,
            peer=peer,
            patience=settings.patience,
            say=say,
            keys=keys,
        )
        watch(this)
        with kept():
            await this.run()
    finally:
        worker.close(CLOSING)


def ready(settings: NodeSettings, say: Callable[[str], None]) -> tuple[Executor, float, Measured]:
    """The stage, the seconds that loading took, and how long its passes take. Raises UserError."""
    begin = time.monotonic()
    stage = load(settings, say)
    return stage, time.monotonic() - begin, measure(stage)


def load(settings: NodeSettings, say: Callable[[str], None]) -> Executor:
    """Load the stage; from a hub, fetch only the files that it needs. Raises UserError."""
    if settings.stages is not None:
        check_stages(Path(settings.model).expanduser(), settings.stages, "--stages")

    @cache
    def chosen() -> str:
        return decided(settings.quant, settings.dtype, settings.device, settings.threads, say)

    where = resolve(
        settings.model,
        settings.revision,
        choose=lambda shape: choose_slice(shape, replace(settings, quant=chosen())),
        part=settings.stage,
        say=say,
    )
    stored = stored_quant(where) is not None  # then there is nothing to choose
    quant = agreed_quant(where, settings.quant) if stored else chosen()
    settings = replace(settings, quant=quant)
    held = None  # a part of a split model brings just the layers of one stage
    if stored_slice(where) is None or settings.layers is not None:
        held = choose_slice(Architecture.read(where), settings)
    return load_stage(
        where,
        held,
        dtype=settings.dtype,
        device=settings.device,
        quant=settings.quant,
        quant_head=settings.quant_head,
        threads=settings.threads,
    )


def choose_slice(shape: Architecture, settings: NodeSettings) -> Slice:
    """The layers that this stage is to hold. Raises UserError."""
    if settings.layers is not None:
        return parse_range(settings.layers, shape.layers)
    if settings.stages is None:
        raise UserError(
            "say which layers this stage holds: --stages N shares the model evenly, --layers A-B "
            "names them"
        )
    if settings.stage > settings.stages:
        raise UserError(f"there is no stage {settings.stage} of {settings.stages}")
    cut = shape.balance(settings.stages, settings.quant, settings.quant_head)
    return cut[settings.stage - 1]


def kv_room(stage: Executor, settings: NodeSettings) -> int:
    """Bytes that keys and values may take at this stage."""
    if settings.kv_memory is not None:
        whole = settings.kv_memory * 2**30
    else:
        whole = free_memory(stage.device) / 2
    return max(int(whole / settings.beside), 1)


def card_of(
    stage: Executor,
    number: int,
    measured: Measured,
    kv_room: int = 0,
    longest: int | None = None,
) -> Card:
    """What stage `number` says about itself."""
    return Card(
        stage=number,
        name=socket.gethostname(),
        version=gardener.__version__,
        first=stage.slice.first,
        end=stage.slice.end,
        layers=stage.slice.layers,
        width=stage.width,
        model=stage.fingerprint,
        dtype=stage.dtype,
        quant=stage.quant,
        memory=stage.memory,
        costs=_on_card(measured.short),
        long=_on_card(measured.long),
        context=measured.context,
        kv_slot=stage.kv_slot,
        kv_room=kv_room,
        longest=longest or 0,
        layer=nanoseconds(measured.layer),
        head=nanoseconds(measured.head),
        spread=stage.spread,
        head_quant=stage.quant_head,
    )


def _on_card(points: Points) -> CostPoints:
    return tuple((rows, microseconds(seconds)) for rows, seconds in points)
