"""Lets happen what a case says, to the machines of a ring."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from random import Random
from typing import Any, Protocol

from gardener.errors import GardenerError, UserError
from gardener.net.dial import dial
from gardener.net.link import Link
from gardener.protocol.messages import Card, Message
from gardener.rings.simulate.injected.case import Case
from gardener.rings.simulate.injected.faults import HIDDEN, NEVER, Boundaries, Fault, When
from gardener.rings.simulate.injected.machines import (
    Death,
    Machine,
    MachineNetwork,
    MachineTransport,
    end,
)
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.network import LinkConditions
from gardener.rings.simulate.ring import Seat, address, card, start_stage

DEATHS = {"crash": Death.CLOSED, "reset crash": Death.RESET, "power": Death.SILENT}

SPIKE = 0.4
"""Seconds, at most, by which what is sent is late."""


class HolderSide(Protocol):
    """The holder, which the injector does not make itself."""

    def crash(self, how: Death) -> None:
        """It dies."""

    def leave(self) -> None:
        """It leaves the ring, whatever runs."""

    def come_back(self) -> None:
        """Another one is started."""


class Injector:
    """The machines of a ring, by number, and what becomes of them. `network` is the loop's."""

    def __init__(
        self, case: Case, library: Library, network: MachineNetwork, holder: HolderSide
    ) -> None:
        self.machines: dict[int, Machine] = {}
        self.seats: dict[int, Seat] = {}
        self.said: list[tuple[float, int, str]] = []  # what the nodes that live say
        self.struck: list[tuple[float, Fault]] = []
        self.ends: list[tuple[float, str]] = []  # when what kind was over
        self.restarts = 0
        self.boundaries = Boundaries()
        self._case, self._library, self._network, self._holder = case, library, network, holder
        self._chance = Random(f"injector {case.seed}")
        self._context: Context = copy_context()  # of nobody's machine
        self._ghosts: list[asyncio.Task[None]] = []  # they wind down, or look after guests
        self._joining: list[tuple[float, Fault]] = []  # for when the ring breaks
        self._cards: dict[int, Card] = {}  # of the stages
        self._pending = 0  # faults that have begun and are not over
        self._away: set[int] = set()  # for good

    # --- the ring ----------------------------------------------------------------------------

    def machine(self, number: int) -> Machine:
        """A new one."""
        made = self.machines[number] = Machine(number)
        made.boundary = lambda what: self.boundaries.passed(what, number)
        return made

    def start(self, number: int) -> None:
        """A stage, with nothing in its memory."""
        self.restarts += number in self._away
        self._away.discard(number)
        machine = self.machine(number)
        self.seats[number] = machine.run(self._start, number, machine)
        self._cards[number] = self.seats[number].node.card

    def _start(self, number: int, machine: Machine, elsewhere: bool = False) -> Seat:
        def say(line: str) -> None:
            if machine.alive:
                self.said.append((asyncio.get_running_loop().time(), number, line))

        return start_stage(
            number,
            self._case.stages,
            self._case.profile,
            self._library,
            self._case.model,
            patience=None,
            say=say,
            at=address(100 + number) if elsewhere else None,
        )

    async def close(self) -> None:
        """End all that is left."""
        for seat in self.seats.values():
            self.in_peace(seat.end())
        while self._ghosts:
            ghosts, self._ghosts = self._ghosts, []
            await asyncio.wait(ghosts)

    @property
    def at_peace(self) -> bool:
        """Nothing is under way that will be over some time."""
        return not self._pending

    @property
    def away(self) -> bool:
        """A stage is, for good."""
        return bool(self._away)

    @property
    def hidden(self) -> bool:
        """It may take a while until all know of what went wrong."""
        return any(fault.kind in HIDDEN for _, fault in self.struck)

    def heal(self) -> None:
        """Whatever was to last for good is over."""
        for number in tuple(self._away):
            self.start(number)

    # --- what goes wrong ---------------------------------------------------------------------

    def arm(self) -> None:
        """The ring stands: from now on it counts."""
        self.boundaries.armed = True
        for fault in self._case.faults:
            match fault.when:
                case When("at", seconds, _):
                    self._later(seconds, partial(self._strike, fault))
                case When("joining", seconds, _):
                    self._joining.append((seconds, fault))
                case _:
                    self.boundaries.at(fault.when, partial(self._strike, fault))

    def disarm(self) -> None:
        """Nothing more goes wrong."""
        self.boundaries.armed = False
        self._joining.clear()

    def broke(self) -> None:
        """The holder says that the ring did."""
        joining, self._joining = self._joining, []
        for seconds, fault in joining:
            self._later(seconds, partial(self._strike, fault))

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._pending += 1
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, self._do, work, context=self._context)

    def _do(self, work: Callable[[], None]) -> None:
        self._pending -= 1
        work()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _strike(self, fault: Fault) -> None:
        machine = self.machines[fault.where]
        there = not fault.where or fault.where in self.seats
        if not there or not machine.alive or machine.frozen or not machine.plugged:
            return  # it cannot get worse
        self.struck.append((self._now(), fault))
        undo = self._begin(fault, machine)
        if fault.seconds != NEVER:
            self._later(fault.seconds, partial(self._undo, fault, undo))

    def _undo(self, fault: Fault, undo: Callable[[], None]) -> None:
        self.ends.append((self._now(), fault.kind))
        undo()

    def _begin(self, fault: Fault, machine: Machine) -> Callable[[], None]:
        """Returns what ends it."""
        where = fault.where
        match fault.kind:
            case "holder crash":
                self._holder.crash(self._chance.choice(tuple(Death)))
                return partial(self._come_back, machine)
            case "holder leave":
                self._holder.leave()
                return self._holder.come_back
            case "crash" | "reset crash" | "power":
                self._kill(where, DEATHS[fault.kind])
                return partial(self._again, where, machine)
            case "leave":
                self._leave(where)
                return partial(self._again, where, machine)
            case "pause" | "holder pause":
                machine.freeze()
                return machine.thaw
            case "twin":
                return self._twin(where)
            case "stranger" | "mute":
                return self._stranger(where, mute=fault.kind == "mute")
            case _:
                return self._on_link(fault)

    def _kill(self, number: int, how: Death) -> None:
        self.machines[number].die(how)
        self._leave(number)

    def _leave(self, number: int) -> None:
        seat = self.seats.pop(number)
        self._away.add(number)
        self.in_peace(seat.end())

    def _again(self, number: int, machine: Machine) -> None:
        machine.plug()
        self.start(number)

    def _come_back(self, machine: Machine) -> None:
        machine.plug()
        self._holder.come_back()

    def in_peace(self, work: Coroutine[Any, Any, None]) -> None:
        """Let this go on beside all else."""
        loop = asyncio.get_running_loop()
        self._ghosts.append(loop.create_task(work, context=self._context.copy()))

    # --- guests ------------------------------------------------------------------------------

    def _twin(self, number: int) -> Callable[[], None]:
        """Returns what ends it."""
        guest, seats = Machine(-number), list[Seat]()
        elsewhere = self._chance.random() < 0.7
        _at_once(guest, lambda: seats.append(self._start(number, guest, elsewhere)))

        def leave() -> None:
            guest.die(Death.CLOSED)
            for seat in seats:
                self.in_peace(_ended(seat))

        return leave

    def _stranger(self, number: int, mute: bool) -> Callable[[], None]:
        """Returns what ends it."""
        guest, tasks = Machine(-number), list[asyncio.Task[None]]()
        work = self._mute if mute else self._greet
        _at_once(guest, lambda: tasks.append(asyncio.create_task(work(number))))

        def leave() -> None:
            guest.die(Death.CLOSED)
            for task in tasks:
                self.in_peace(end(task))

        return leave

    async def _greet(self, number: int) -> None:
        """As the peer before it, until it is let in; then go."""
        case = self._case
        shown = self._cards[number - 1] if number > 1 else card(0, case.profile, case.model)
        with contextlib.suppress(GardenerError):
            link = await dial(
                address(number),
                shown,
                _Nobody(),
                admit=lambda peer: None,
                patience=None,
                waiting=lambda why: None,
            )
            await link.close("it was a mistake")

    async def _mute(self, number: int) -> None:
        loop, there = asyncio.get_running_loop(), address(number)
        for _ in range(self._chance.choice((1, 20))):
            with contextlib.suppress(OSError):
                await loop.create_connection(asyncio.Protocol, there.host, there.port)

    # --- links -------------------------------------------------------------------------------

    def _on_link(self, fault: Fault) -> Callable[[], None]:
        near = self._between(fault.where, (fault.where + 1) % (self._case.stages + 1))
        if near is None:
            return lambda: None
        match fault.kind:
            case "reset":
                near.reset()
            case "silence":
                near.cut()
            case "one way":
                self._chance.choice(_ends(near)).wire.whole = False
            case "stall":
                for each in _ends(near):
                    each.wire.stall(self._now() + fault.seconds)
            case "spike":
                return self._spike(near)
        return lambda: None

    def _spike(self, near: MachineTransport) -> Callable[[], None]:
        usual = near.wire.conditions
        late = LinkConditions(usual.delay, usual.bandwidth, SPIKE)
        wires = [each.wire for each in _ends(near)]
        for wire in wires:
            wire.conditions = late

        def settle() -> None:
            for wire in wires:
                wire.conditions = usual

        return settle

    def _between(self, before: int, after: int) -> MachineTransport | None:
        """The end that dialled, of the newest connection between these machines."""
        wanted = self.machines[before], self.machines[after]
        for near in reversed(self._network.ends[::2]):
            assert isinstance(near, MachineTransport)
            far = near.peer
            assert isinstance(far, MachineTransport)
            if (near.machine, far.machine) == wanted and near.is_open:
                return near
        return None


def _ends(near: MachineTransport) -> tuple[MachineTransport, MachineTransport]:
    assert isinstance(near.peer, MachineTransport)
    return near, near.peer


def _at_once(guest: Machine, work: Callable[[], object]) -> None:
    """On the machine of a guest, but not within the callback of another one."""
    asyncio.get_running_loop().call_soon(work, context=guest.context)


async def _ended(seat: Seat) -> None:
    """One that may have ended by itself, since its address was taken."""
    await seat.end()
    if not seat.task.cancelled() and (error := seat.task.exception()):
        assert isinstance(error, UserError), error


class _Nobody:
    """Holds a link and has no use for it."""

    def heard(self, link: Link, message: Message) -> None:
        """It does not matter."""

    def lost(self, link: Link, error: GardenerError) -> None:
        """It does not matter."""
