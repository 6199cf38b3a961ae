"""Machines that may stand still, die, and lose their network, each with one process on it.

All that a process does runs in a context that names its machine (`Machine.run`); whatever that
code schedules, dials or listens at inherits it. So the loop knows whose callback is due, and the
network whose connection is made, and neither the holder nor the stages know of any of it.

A process that has died goes on as a ghost: its tasks are cancelled and wind down as they would in
an orderly end, but nothing that it does reaches the network any more.
"""

import asyncio
import contextlib
import errno
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar, copy_context
from enum import Enum
from typing import Any, ParamSpec, TypeVar, cast

from gardener.rings.simulate.loop import Loop
from gardener.rings.simulate.network import (
    Factory,
    LinkConditions,
    SimulatedNetwork,
    SimulatedServer,
    SimulatedTransport,
    Wire,
)

P = ParamSpec("P")
T = TypeVar("T")

RETRY = 0.25
"""Seconds after which a connection is tried again that gets no answer."""


class Death(Enum):
    """How a process ends, as its neighbours see it."""

    CLOSED = "its connections are closed"  # by the kernel, as after kill -9
    RESET = "its connections are reset"  # as they are where something was left unread
    SILENT = "nobody is told"  # the power is gone, or the cable


class Machine:
    """One process, by the number of its stage. `boundary` is called before each of its writes
    ("send") and before it gets each piece that arrives ("hear"); it may let the machine die."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.alive, self.plugged, self.frozen = True, True, False
        self.boundary: Callable[[str], None] = lambda what: None
        self.ends: list[MachineTransport] = []
        self.servers: list[SimulatedServer] = []
        self.context: Context = copy_context()
        self.context.run(_HERE.set, self)
        self._late: list[tuple[_Turn, tuple[Any, ...]]] = []  # what was due while it stood still

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do this on the machine. Not from one of its own callbacks, nor from another's."""
        return self.context.run(work, *args, **kwargs)

    def freeze(self) -> None:
        """Stand still, as after SIGSTOP: connections stay, and what arrives waits."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on: first with what has arrived meanwhile, then with what else is due."""
        self.frozen = False
        late, self._late = self._late, []
        for turn, args in sorted(late, key=lambda each: not each[0].arrives):
            turn.again(*args)

    def unplug(self) -> None:
        """Nothing arrives any more, and nobody is told."""
        self.plugged = False
        for end in self.ends:
            end.cut()

    def plug(self) -> None:
        """New connections can be made again."""
        self.plugged = True

    def die(self, how: Death) -> None:
        """At once and without a word."""
        if how is Death.SILENT:
            self.unplug()
        self.alive = False
        for server in self.servers:
            server.close()
        for end in self.ends:
            end.reset() if how is Death.RESET else end.abort()
        self.thaw()

    def hold(self, turn: "_Turn", args: tuple[Any, ...]) -> None:
        """This is due while it stands still."""
        self._late.append((turn, args))


_HERE: ContextVar[Machine | None] = ContextVar("machine", default=None)


def _here() -> Machine:
    machine = _HERE.get()
    assert machine is not None, "what uses the network runs on a machine"
    return machine


class _Turn:
    """A callback of a machine, which waits while that stands still."""

    __slots__ = ("_callback", "_loop", "_machine", "handle")

    def __init__(
        self, loop: "MachineLoop", machine: Machine, callback: Callable[..., object]
    ) -> None:
        self._loop, self._machine, self._callback = loop, machine, callback
        self.handle: asyncio.Handle | None = None

    def __call__(self, *args: Any) -> None:
        if self._machine.frozen:
            self._machine.hold(self, args)
        elif self.handle is None or not self.handle.cancelled():
            self._callback(*args)

    @property
    def arrives(self) -> bool:
        """It brings what has arrived over the network."""
        return isinstance(getattr(self._callback, "__self__", None), SimulatedTransport)

    def again(self, *args: Any) -> None:
        """Its machine goes on."""
        assert self.handle is not None
        context = cast(Context, self.handle._context)  # type: ignore[attr-defined]
        super(MachineLoop, self._loop).call_soon(self, *args, context=context)


class MachineLoop(Loop):
    """A virtual clock under which machines may stand still."""

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        machine = _HERE.get() if context is None else context.get(_HERE)
        if machine is None:
            return cast(asyncio.Handle, super().call_soon(callback, *args, context=context))
        turn = _Turn(self, machine, callback)
        handle: asyncio.Handle = super().call_soon(turn, *args, context=context)
        turn.handle = handle
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        machine = _HERE.get() if context is None else context.get(_HERE)
        if machine is None:
            return super().call_at(when, callback, *args, context=context)
        turn = _Turn(self, machine, callback)
        handle = super().call_at(when, turn, *args, context=context)
        turn.handle = handle
        return handle


class MachineTransport(SimulatedTransport):
    """An end of a connection on a machine."""

    def __init__(self, machine: Machine, wire: Wire, *args: Any) -> None:
        super().__init__(wire, *args)
        self.machine, self.context = machine, machine.context
        machine.ends.append(self)

    @property
    def is_open(self) -> bool:
        """Neither end has closed it."""
        assert self.peer is not None
        return not self.is_closing() and not self.peer.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.machine.alive and not self.is_closing():
            self.machine.boundary("send")
        super().write(data)

    def _arrive(self) -> None:
        if self.machine.alive and not self.is_closing():
            self.machine.boundary("hear")
        super()._arrive()

    def cut(self) -> None:
        """Both wires: nothing arrives at either end any more, and neither is told."""
        assert self.peer is not None
        self.wire.whole = self.peer.wire.whole = False


class MachineNetwork(SimulatedNetwork):
    """Connections between machines."""

    def __init__(
        self, conditions: LinkConditions, seed: int, named: Mapping[int, LinkConditions]
    ) -> None:
        super().__init__(conditions, seed, named)
        self._hosts: dict[tuple[str, int], Machine] = {}  # who listened there last

    def serve(self, factory: Factory, host: str, port: int) -> SimulatedServer:
        machine = _here()
        if not machine.alive:
            raise _unreachable()
        server = super().serve(factory, host, port)
        machine.servers.append(server)
        self._hosts[host, port] = machine
        return server

    async def connect(
        self, factory: Factory, host: str, port: int
    ) -> tuple[SimulatedTransport, asyncio.BaseProtocol]:
        here = _here()
        if not here.alive:
            raise _unreachable()
        # Nobody answers a machine without a network, nor for one: who dials tries on and on.
        while not (here.plugged and self._is_plugged(host, port)):  # noqa: ASYNC110 - as kernels do
            await asyncio.sleep(RETRY)
        return await super().connect(factory, host, port)

    def _is_plugged(self, host: str, port: int) -> bool:
        there = self._hosts.get((host, port))
        return there is None or there.plugged

    def _pair(self, there: tuple[str, int]) -> tuple[SimulatedTransport, SimulatedTransport]:
        here = self._ephemeral(there)
        near = MachineTransport(_here(), self._wire(there[1]), there, here)
        far = MachineTransport(self._hosts[there], self._wire(there[1]), here, there)
        return self._joined(near, far)

    def _accept(self, server: SimulatedServer, far: SimulatedTransport) -> None:
        """In its turn, for who listens may stand still."""
        loop = asyncio.get_running_loop()
        loop.call_soon(self._begin, server, far, context=far.context)

    def _begin(self, server: SimulatedServer, far: SimulatedTransport) -> None:
        if server.is_open and not far.is_closing():
            far.begin(server.factory())
        else:
            far.reset()


def _unreachable() -> OSError:
    return OSError(errno.ENETUNREACH, "a ghost has no network")


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel it, and wait until it has wound down."""
    task.cancel()
    with contextlib.suppress(BaseException):
        await asyncio.wait([task])
