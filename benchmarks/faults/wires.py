"""Hosts in network namespaces, and the wires between them: real TCP of the kernel, over links that
are slow, narrow and lossy.

Where the kernel has `tc netem`, each host hangs on a bridge by a veth pair. Where it has not, each
has a TUN device, and this program carries the packets from one to the other: with the delay, at the
rate, and without those that are lost. The kernel's own TCP finds out and sends them again.
"""

import asyncio
import fcntl
import os
import random
import struct
import subprocess
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field

NET = "10.77.0"
PREFIX = "gfault"
"""Of the names of namespaces, devices and the bridge."""

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKET = 65536
QUEUE = 0.5
"""Seconds of packets that wait for a narrow wire; more are lost, as in a router."""


@dataclass(frozen=True)
class Condition:
    """What each host's wire does to what the host sends.

    delay  seconds that a packet takes
    loss   part of the packets that are lost
    rate   bit/s; 0: no limit
    """

    delay: float = 0.0
    loss: float = 0.0
    rate: float = 0.0

    def __str__(self) -> str:
        parts = (
            f"{1e3 * self.delay:g} ms" if self.delay else "",
            f"{100 * self.loss:g} % loss" if self.loss else "",
            f"{self.rate / 1e6:g} Mb/s" if self.rate else "",
        )
        return ", ".join(part for part in parts if part) or "nothing"

    def netem(self) -> tuple[str, ...]:
        """As `tc` takes it."""
        return (
            *("delay", f"{1e3 * self.delay:g}ms", "loss", f"{100 * self.loss:g}%"),
            *(("rate", f"{self.rate:.0f}bit") if self.rate else ()),
        )


def ip(*command: str, tool: str = "ip") -> bool:
    """Run `ip` or `tc`; whether it worked."""
    done = subprocess.run([tool, *command], capture_output=True, check=False)
    return done.returncode == 0


def must(*command: str, tool: str = "ip") -> None:
    """The same. Raises SystemExit if it did not."""
    done = subprocess.run([tool, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {tool} {' '.join(command)}: {done.stderr.strip()}")


def has_netem() -> bool:
    """Whether the kernel can do it itself."""
    device = f"{PREFIX}x"
    made = ip("link", "add", device, "type", "dummy") or ip(
        *("link", "add", device, "type", "veth", "peer", "name", f"{device}p")
    )
    found = made and ip(
        *("qdisc", "add", "dev", device, "root", "netem", "delay", "1ms"), tool="tc"
    )
    ip("link", "del", device)
    return found


@dataclass
class Host:
    """One of them. `number` starts at 1."""

    number: int

    @property
    def space(self) -> str:
        """Its namespace."""
        return f"{PREFIX}{self.number}"

    @property
    def device(self) -> str:
        """Its end of the wire."""
        return f"{PREFIX}w{self.number}"

    @property
    def address(self) -> str:
        return f"{NET}.{self.number}"

    def inside(self) -> tuple[str, ...]:
        """What goes before a command that is to run there."""
        return ("ip", "netns", "exec", self.space)

    def begin(self) -> None:
        """With its device inside: addresses."""
        must("-n", self.space, "addr", "add", f"{self.address}/24", "dev", self.device)
        must("-n", self.space, "link", "set", "lo", "up")
        self.link(up=True)

    def link(self, up: bool) -> None:
        """Plug the wire in, or pull it."""
        must("-n", self.space, "link", "set", self.device, "up" if up else "down")


@dataclass
class Wires(ABC):
    """So many hosts. Used as a context, nothing is left of them."""

    count: int
    condition: Condition = field(default_factory=Condition)
    hosts: list[Host] = field(default_factory=list)

    how = ""

    def open(self) -> None:
        """Make the hosts. Raises SystemExit."""
        self.close()
        self.hosts = [Host(number) for number in range(1, self.count + 1)]
        for host in self.hosts:
            must("netns", "add", host.space)
            self.plug(host)
            host.begin()

    def close(self) -> None:
        """Nothing is left, of an earlier run either."""
        for number in range(1, self.count + 1):
            ip("netns", "del", Host(number).space)

    @abstractmethod
    def plug(self, host: Host) -> None:
        """Give it its device."""

    def become(self, condition: Condition) -> None:
        """From now on."""
        self.condition = condition


class Netem(Wires):
    """By the kernel."""

    how = "veth pairs on a bridge, tc netem"
    bridge = f"{PREFIX}br"

    def open(self) -> None:
        ip("link", "del", self.bridge)
        must("link", "add", self.bridge, "type", "bridge")
        must("link", "set", self.bridge, "up")
        super().open()

    def close(self) -> None:
        super().close()
        ip("link", "del", self.bridge)

    def plug(self, host: Host) -> None:
        port = f"{PREFIX}p{host.number}"
        must("link", "add", port, "type", "veth", "peer", "name", host.device)
        must("link", "set", port, "master", self.bridge, "up")
        must("link", "set", host.device, "netns", host.space)

    def become(self, condition: Condition) -> None:
        super().become(condition)
        for host in self.hosts:
            where = ("-n", host.space, "qdisc", "replace", "dev", host.device, "root")
            must(*where, "netem", *condition.netem(), tool="tc")


class Carried(Wires):
    """By this program. Made inside a running loop."""

    how = "TUN devices, packets carried by the benchmark"

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(count)
        self._chance = random.Random(seed)
        self._ends: dict[bytes, int] = {}  # by address: the file of the device
        self._busy: dict[int, float] = {}  # until which loop time each wire is
        self._under_way: dict[int, deque[tuple[float, int, bytes]]] = {}

    def plug(self, host: Host) -> None:
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        named = struct.pack("16sH14x", host.device.encode(), IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(end, TUNSETIFF, named)
        must("link", "set", host.device, "netns", host.space)
        self._ends[bytes(map(int, host.address.split(".")))] = end
        self._busy[end], self._under_way[end] = 0.0, deque()
        asyncio.get_running_loop().add_reader(end, self._read, end)

    def close(self) -> None:
        for end in self._ends.values():
            asyncio.get_running_loop().remove_reader(end)
            os.close(end)
        self._ends.clear()
        super().close()

    def _read(self, end: int) -> None:
        try:
            packet = os.read(end, PACKET)
        except OSError:  # nothing there, or the link is down
            return
        there = self._ends.get(packet[16:20])  # its destination
        if there is not None and self._chance.random() >= self.condition.loss:
            self._send(end, there, packet)

    def _send(self, end: int, there: int, packet: bytes) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        free = max(self._busy[end], now)
        if free > now + QUEUE:
            return
        if self.condition.rate:
            free += 8 * len(packet) / self.condition.rate
        self._busy[end] = free
        due = free + self.condition.delay
        if due <= now and not self._under_way[end]:
            self._arrive(there, packet)
            return
        self._under_way[end].append((due, there, packet))
        if len(self._under_way[end]) == 1:
            loop.call_at(due, self._due, end)

    def _due(self, end: int) -> None:
        """Let arrive what is due, in the order in which it left."""
        loop, waiting = asyncio.get_running_loop(), self._under_way[end]
        while waiting and waiting[0][0] <= loop.time() + 5e-4:
            _, there, packet = waiting.popleft()
            self._arrive(there, packet)
        if waiting:
            loop.call_at(waiting[0][0], self._due, end)

    def _arrive(self, there: int, packet: bytes) -> None:
        try:
            os.write(there, packet)
        except OSError:  # its link is down: lost
            return


def wires(count: int, seed: int) -> Wires:
    """The hosts, by what the kernel can do."""
    return Netem(count) if has_netem() else Carried(count, seed)
