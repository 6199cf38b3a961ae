"""A stage from its settings: loaded and measured. Imports torch, which takes seconds."""

import socket
import time
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch

import gardener
from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.parts import check_stages
from gardener.model.checkpoint.quantised import agreed_quant, stored_quant
from gardener.model.checkpoint.resolve import resolve
from gardener.model.checkpoint.slices import Slice, parse_range
from gardener.model.device.named import free_memory
from gardener.model.loader import stored_slice
from gardener.protocol.cards import arithmetic, exactness, memory_problem
from gardener.protocol.messages import Card, CostPoints, microseconds, nanoseconds
from gardener.protocol.names import as_name
from gardener.runtime.wording import Say, span
from gardener.stages.executor import Executor
from gardener.stages.load import load_stage
from gardener.stages.measure import Measured, Points, measure
from gardener.stages.phases import Phase, Phases
from gardener.stages.quant import decided
from gardener.stages.settings import NodeSettings
from gardener.stages.sight import Machine


@dataclass(frozen=True)
class Ready:
    """A stage that can serve, what it says about itself, and what it computes on."""

    stage: Executor
    card: Card
    machine: Machine


def ready(settings: NodeSettings, phases: Phases, say: Say) -> Ready:
    """Load and measure the stage. `say` is given lines for the user. Raises UserError."""
    begin = time.monotonic()
    stage = load(settings, phases, say)
    loaded = time.monotonic() - begin
    phases.begin(Phase.TIMING)
    say("timing itself")
    measured = measure(stage)
    room = kv_room(stage, settings)
    card = card_of(stage, settings.stage, measured, room, settings.context, settings.command)
    if settings.context and (problem := memory_problem(settings.context, [card])):
        raise UserError(problem)
    say(
        f"{span(card.first, card.end)} of {card.layers} on {settings.device} in "
        f"{arithmetic(card)}, {stage.memory / 1e6:.0f} MB, loaded in {loaded:.1f} s"
    )
    say(exactness([card], "this stage"))
    say(str(measured))
    say(f"keys and values may take {room / 2**30:.3g} GiB: {room // stage.kv_slot} tokens")
    free = partial(free_memory, stage.device)
    return Ready(stage, card, Machine(settings.device, free, str(torch.__version__)))


def load(settings: NodeSettings, phases: Phases, say: Say) -> Executor:
    """Load the stage; from a hub, fetch only the files that it needs. Raises UserError."""
    phases.begin(Phase.FINDING)
    if settings.stages is not None:
        check_stages(Path(settings.model).expanduser(), settings.stages, "--stages")

    def found(line: str) -> None:
        phases.begin(Phase.FINDING, f"{Phase.FINDING} ({line})")
        say(line)

    @cache
    def chosen() -> str:
        return decided(settings.quant, settings.dtype, settings.device, settings.threads, say)

    where = resolve(
        settings.model,
        settings.revision,
        choose=lambda shape: choose_slice(shape, replace(settings, quant=chosen())),
        part=settings.stage,
        say=found,
    )
    stored = stored_quant(where) is not None  # then there is nothing to choose
    quant = agreed_quant(where, settings.quant) if stored else chosen()
    settings = replace(settings, quant=quant)
    phases.begin(Phase.LOADING)
    held = None  # a part of a split model brings just the layers of one stage
    if stored_slice(where) is None or settings.layers is not None:
        held = choose_slice(Architecture.read(where), settings)
    say(f"loading {held or stored_slice(where)}")
    return load_stage(
        where,
        held,
        dtype=settings.dtype,
        device=settings.device,
        quant=settings.quant,
        quant_head=settings.quant_head,
        threads=settings.threads,
        graphs=settings.graphs,
        progress=phases.progress,
        say=say,
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
    """Bytes of keys and values that requests may ask for at this stage."""
    if settings.kv_memory is not None:
        whole = settings.kv_memory * 2**30
    else:
        whole = free_memory(stage.device) / 2
    return max(int(whole / settings.beside / stage.passes.waste), 1)


def card_of(
    stage: Executor,
    number: int,
    measured: Measured,
    kv_room: int = 0,
    longest: int | None = None,
    command: str = "",
) -> Card:
    """What stage `number` says about itself. A `command` is told whole or not at all."""
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
        command=command if as_name(command) == command else "",
    )


def _on_card(points: Points) -> CostPoints:
    return tuple((rows, microseconds(seconds)) for rows, seconds in points)
