"""A holder and its stages in one process, on the running loop, which is a `simulate.loop.Loop`.

There is no live view, and the ring ends with its holder.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gardener
from gardener.draft.drafter import Drafter
from gardener.errors import UserError
from gardener.holder.holder import Holder
from gardener.model.checkpoint.slices import Slice, even_cut
from gardener.net.address import Address
from gardener.protocol.messages import Card, microseconds
from gardener.protocol.tensors import ITEM_SIZE
from gardener.rings.simulate.drafter import meter_drafters
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.loop import Loop
from gardener.rings.simulate.network import LinkConditions, SimulatedNetwork, SimulatedTransport
from gardener.rings.simulate.processor import ChargingTrace, Processor
from gardener.rings.simulate.profile import Profile
from gardener.rings.simulate.stage import SimulatedStage
from gardener.rings.simulate.targets import Targets
from gardener.rings.simulate.worker import Meter, VirtualWorker
from gardener.runtime.trace import Trace
from gardener.runtime.wording import Say
from gardener.stages.node import StageNode


@dataclass(frozen=True)
class SimulatedModel:
    """The model that the cards of the stages name."""

    layers: int
    width: int
    fingerprint: str = "made up"
    slots: int = 0  # for which each stage has memory; 0: not bounded


@dataclass(frozen=True)
class Seat:
    """A running node, with its worker and its task."""

    stage: SimulatedStage
    node: StageNode
    worker: VirtualWorker
    task: "asyncio.Task[None]"

    async def end(self) -> None:
        """Let the node leave the ring, and wait for it."""
        self.task.cancel()
        await asyncio.wait([self.task])
        self.worker.close()


@dataclass(frozen=True)
class SimulatedRing:
    """A ring that is closed. `network` has its connections; the first of `seats` is stage 1."""

    holder: Holder
    network: SimulatedNetwork
    seats: Sequence[Seat]


@asynccontextmanager
async def simulated_ring(
    stages: int,
    profile: Profile,
    library: Library,
    model: SimulatedModel,
    drafters: Sequence[Drafter],
    *,
    patience: float = 120.0,
    say: Say = lambda line: None,
) -> AsyncIterator[SimulatedRing]:
    """A ring of stages that play back what is in the library. `say` gets the stages' lines.

    Raises UserError if the model has too few layers, or the profile is for another ring.
    """
    profile.check(stages)
    network = _network(profile, model, stages)
    seats: list[Seat] = []
    for number in range(1, stages + 1):
        say_so = partial(_say_of, say, number)
        seats.append(
            start_stage(number, stages, profile, library, model, patience=patience, say=say_so)
        )
    try:
        processor = profile.processor()
        holder = _holder(profile, model, drafters, patience, processor)
        try:
            await holder.connect()
            for end in _ends(network):
                end.owner = processor
            yield SimulatedRing(holder, network, seats)
        finally:
            await holder.close()
    finally:
        for seat in seats:
            await seat.end()


def start_stage(
    number: int,
    stages: int,
    profile: Profile,
    library: Library,
    model: SimulatedModel,
    *,
    patience: float | None,
    say: Say,
    at: Address | None = None,
) -> Seat:
    """Start one of `stages` nodes, on the running loop. `at`: another address than its own."""
    held = _slices(model, stages)[number - 1]
    meter, curve = Meter(), profile.stage(number, stages)
    costs = tuple((rows, microseconds(seconds)) for rows, seconds in curve.points)
    stage = SimulatedStage(held, library, curve, meter, width=model.width)
    worker = VirtualWorker("stage", meter)
    node = StageNode(
        stage,
        card(number, profile, model, held=held, costs=costs),
        worker,
        Trace(),
        listen_at=at or address(number),
        peer=address((number + 1) % (stages + 1)),
        patience=patience,
        say=say,
    )
    return Seat(stage, node, worker, asyncio.create_task(node.run()))


@asynccontextmanager
async def simulate(
    stages: int,
    profile: Profile,
    folder: Path,
    drafters: Sequence[Drafter],
    *,
    eos: frozenset[int],
    patience: float,
    say: Say,
    heard: Say,
    progress: Say = lambda text: None,
) -> AsyncIterator[Holder]:
    """The holder of a ring that writes what the model in a folder would write.

    Its `prepare` must be called with all prompts before they are asked. `eos`: tokens that end
    an answer. `say` is for the user, `heard` gets the stages' lines, `progress` is told how far a
    recording is.

    Raises UserError.
    """
    taps = next((drafter.taps for drafter in drafters if drafter.taps), ())
    targets = Targets(folder, eos, taps, say, progress)
    shape = targets.shape
    model = SimulatedModel(shape.layers, shape.width, targets.fingerprint)
    async with simulated_ring(
        stages, profile, targets.library, model, drafters, patience=patience, say=heard
    ) as ring:
        ring.holder.prepare = targets.prepare
        yield ring.holder


def _network(profile: Profile, model: SimulatedModel, stages: int) -> SimulatedNetwork:
    """A new network, in which the running loop makes connections from now on."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, Loop):
        raise UserError(
            "a simulated ring needs a virtual clock: run it on a loop that RingSettings.loop() "
            "makes, as asyncio.Runner(loop_factory=settings.loop()) does"
        )
    usual, named = conditions(profile, model, stages)
    loop.network = SimulatedNetwork(usual, profile.seed, named)
    return loop.network


def conditions(
    profile: Profile, model: SimulatedModel, stages: int
) -> tuple[LinkConditions, dict[int, LinkConditions]]:
    """Of the links of a ring: those of the first one, and of each by the port that is dialled."""
    row = model.width * ITEM_SIZE["float32"]
    hops = [profile.link_conditions(row, hop) for hop in range(stages + 1)]
    named = {address((hop + 1) % (stages + 1)).port: each for hop, each in enumerate(hops)}
    return hops[0], named


def _slices(model: SimulatedModel, stages: int) -> list[Slice]:
    """An even cut: the layers of a stage decide where its passes may stop and which features it
    gives, but not what a pass costs."""
    return even_cut([1] * model.layers, 0, stages)


def _ends(network: SimulatedNetwork) -> list[SimulatedTransport]:
    """The holder's ends: it dialled stage 1, and the last stage dialled it."""
    ends = zip(network.ends[::2], network.ends[1::2], strict=True)
    dialled = [(near.get_extra_info("peername"), near, far) for near, far in ends]
    return [
        *(near for there, near, _ in dialled if there == tuple(address(1))),
        *(far for there, _, far in dialled if there == tuple(address(0))),
    ]


def _holder(
    profile: Profile,
    model: SimulatedModel,
    drafters: Sequence[Drafter],
    patience: float,
    processor: Processor,
) -> Holder:
    meter = Meter()
    meter_drafters(drafters, profile.draft(), meter)
    return Holder(
        card(0, profile, model),
        drafters,
        ChargingTrace(processor),
        listen_at=address(0),
        peer=address(1),
        patience=patience,
        say=lambda line: None,
        make_worker=lambda name: VirtualWorker(name, meter, processor),
    )


def address(stage: int) -> Address:
    """Where a stage listens; 0: the holder."""
    return Address("simulated", 7000 + stage)


def _say_of(say: Callable[[str], None], stage: int, line: str) -> None:
    say(f"stage {stage}: {line}")


def card(
    stage: int,
    profile: Profile,
    model: SimulatedModel,
    *,
    held: Slice | None = None,
    costs: tuple[tuple[int, int], ...] = (),
) -> Card:
    """What a stage, or the holder, says about itself."""
    return Card(
        stage=stage,
        name=f"simulated {profile.name}",
        version=gardener.__version__,
        first=held.first if held else 0,
        end=held.end if held else 0,
        layers=model.layers,
        width=model.width,
        model=model.fingerprint,
        dtype="float32",
        quant="none",
        memory=0,
        costs=costs,
        kv_slot=1 if held and model.slots else 0,
        kv_room=model.slots if held else 0,
        head_quant="none",
        layer=_alone(costs, held.end - held.first) if held else 0,
        head=int(held is not None and held.is_last and bool(costs)),  # it is in its layers
    )


def _alone(costs: tuple[tuple[int, int], ...], layers: int) -> int:
    """Nanoseconds of a row alone in one layer, as all layers of a stage share its pass; 0: there is
    no pass."""
    return max(costs[0][1] * 1000 // layers, 1) if costs else 0
