"""A ring that breaks is opened again, and who asks meanwhile is told what is missing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from loopback import run, until
from served import folder

from gardener.errors import GardenerError, PeerLost, UserError
from gardener.rings.opened import OpenRing
from gardener.rings.settings import RingSettings
from gardener.serve import keeper as keeper_module
from gardener.serve.keeper import RingKeeper

LOST = "stage 2 was lost"
FULL = OSError(24, "Too many open files")


class Ring:
    """Stands until it is told to break."""

    def __init__(self) -> None:
        self.folder = folder()
        self.holder = self.admission = self
        self.max_waiting = 0
        self._broke: asyncio.Future[GardenerError] = asyncio.get_running_loop().create_future()

    async def failure(self) -> GardenerError:
        return await self._broke

    def break_(self) -> None:
        self._broke.set_result(PeerLost(LOST))


class Rings:
    """Opens a ring whenever it is asked, after what is in `troubles`."""

    def __init__(self, *troubles: Exception) -> None:
        self.troubles = list(troubles)
        self.opened: list[Ring] = []
        self.left = 0
        self.gate = asyncio.Event()
        self.gate.set()

    @asynccontextmanager
    async def open(self, settings: RingSettings, say: Any, heard: Any) -> AsyncIterator[OpenRing]:
        say("waiting for stage 2")
        await self.gate.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        self.opened.append(Ring())
        try:
            yield cast(OpenRing, self.opened[-1])
        finally:
            self.left += 1


def keep(
    monkeypatch: pytest.MonkeyPatch, rings: Rings, **where: Any
) -> tuple[RingKeeper, "asyncio.Task[None]", list[str]]:
    monkeypatch.setattr(keeper_module, "open_ring", rings.open)
    monkeypatch.setattr(keeper_module, "SHORTEST", 0.01)
    said: list[str] = []
    settings = RingSettings(**(where or {"peer": "127.0.0.1:9"}))
    keeper = RingKeeper(settings, said.append, said.append, waiting=3)
    return keeper, asyncio.create_task(keeper.run()), said


async def end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_broken_ring_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        rings = Rings()
        keeper, task, said = keep(monkeypatch, rings)
        assert keeper.ring is None
        await until(lambda: keeper.ring)
        assert rings.opened[0].max_waiting == 3
        rings.gate.clear()
        rings.opened[0].break_()
        await until(lambda: keeper.why == f"{LOST}; now: waiting for stage 2")
        assert keeper.ring is None
        assert rings.left == 1, "the broken one is closed before another is opened"
        rings.gate.set()
        await until(lambda: keeper.ring)
        assert keeper.ring is cast(Any, rings.opened[1])
        await end(task)
        assert keeper.ring is None
        assert rings.left == 2
        assert f"error: {LOST}" in said

    run(scenario)


def test_what_fails_while_a_ring_opens_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        rings = Rings(PeerLost("nobody there"), PeerLost("still nobody"))
        keeper, task, said = keep(monkeypatch, rings)
        await until(lambda: keeper.ring)
        assert [line for line in said if line.startswith("error")] == [
            "error: nobody there",
            "error: still nobody",
        ]
        await end(task)

    run(scenario)


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (UserError("no such model"), {"peer": "127.0.0.1:9"}),
        (UserError("no such model"), {"local": 2}),
        (PeerLost("stage 1 ended with status 1"), {"local": 2}),
        (FULL, {"peer": "127.0.0.1:9"}),
    ],
)
def test_what_can_never_open_ends_the_server(
    monkeypatch: pytest.MonkeyPatch, error: Exception, where: dict[str, Any]
) -> None:
    async def scenario() -> None:
        _, task, _ = keep(monkeypatch, Rings(error), **where)
        await asyncio.wait([task])
        assert task.exception() is error

    run(scenario)


def test_what_can_never_open_is_found_out_late(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        error = UserError("the stages have another model")
        _, task, _ = keep(monkeypatch, Rings(PeerLost("nobody there"), error))
        await asyncio.wait([task])
        assert task.exception() is error

    run(scenario)


def test_what_once_stood_is_opened_until_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        rings = Rings()
        keeper, task, said = keep(monkeypatch, rings, local=2)
        await until(lambda: keeper.ring)
        rings.troubles = [PeerLost("stage 1 was killed"), UserError("no memory"), FULL]
        rings.opened[0].break_()
        await until(lambda: len(rings.opened) == 2)
        assert keeper.ring is not None
        assert "error: the ring could not be opened: OSError: too many open files" in said
        await end(task)

    run(scenario)
