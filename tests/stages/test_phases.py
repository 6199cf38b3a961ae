"""What a stage tells whoever dials it before it serves."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny
from loopback import Ear, card, ring, run, until

from gardener.cli.view.node_watch import NodeWatch
from gardener.errors import UserError
from gardener.model.progress import Progress, Reading
from gardener.net.address import Address
from gardener.net.dial import dial
from gardener.rings.equipment import holder_card
from gardener.stages.load import load_stage
from gardener.stages.node import StageNode
from gardener.stages.phases import LONG, Phase, Phases
from gardener.stages.serve import serve
from gardener.stages.settings import NodeSettings


def test_each_phase_is_said_of_the_stage() -> None:
    now = 100.0
    phases = Phases(2, lambda: now)
    assert phases.refusal(card(1, 3)) == "stage 2 is starting"
    phases.begin(Phase.IN_LINE, "waits for stage 1 of the same machine to load")
    assert phases.doing == "waits for stage 1 of the same machine to load"
    phases.begin(Phase.LOADING)
    assert (phases.doing, phases.loaded) == ("is loading its weights", 0.0)
    phases.progress(34, 100)
    assert (phases.doing, phases.loaded) == ("is loading its weights, 34 %", 0.34)
    now += LONG + 2
    assert phases.doing == "is loading its weights, 34 %, for 12 s"
    phases.begin(Phase.TIMING)
    assert (phases.doing, phases.loaded) == ("is timing itself, to be ready in a moment", 1.0)
    phases.begin(Phase.SERVING)
    assert (phases.doing, phases.serves) == ("", True)
    assert phases.refusal(card(1, 3)) == "stage 2 is about to serve"


def test_nothing_in_all_is_no_share_of_it() -> None:
    phases = Phases(1, lambda: 0.0)
    phases.begin(Phase.LOADING)
    phases.progress(0, 0)
    assert phases.doing == "is loading its weights"


def test_what_is_read_twice_counts_once_and_what_is_not_ours_not_at_all() -> None:
    told: list[tuple[int, int]] = []
    reading = Reading({"a": 3, "b": 5}, lambda *each: told.append(each))
    for name in ("a", "a", "c", "b"):
        reading.read(name)
    assert told == [(0, 8), (3, 8), (3, 8), (3, 8), (8, 8)]


class Gate:
    """Holds the load of a stage whenever so much of it is done."""

    def __init__(self, *shares: float) -> None:
        self._shares = list(shares)
        self.held = threading.Event()
        self._go = threading.Semaphore(0)

    def around(self, progress: Progress) -> Progress:
        """For the worker thread."""

        def told(done: int, whole: int) -> None:
            progress(done, whole)
            while self._shares and done >= self._shares[0] * whole:
                self._shares.pop(0)
                self.held.set()
                assert self._go.acquire(timeout=60)

        return told

    def on(self) -> None:
        """Let it go on to the next share."""
        self.held.clear()
        self._go.release()


class Started:
    """A real stage that is started on this loop."""

    def __init__(self, gate: Gate, phases: Phases) -> None:
        self.gate, self.phases = gate, phases
        self.nodes: list[StageNode] = []
        self.said: list[str] = []

    async def held(self) -> None:
        """Until its load is held."""
        await until(self.gate.held.is_set)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    tiny.make("llama", tmp_path / "model")
    return tmp_path / "model"


@contextlib.asynccontextmanager
async def started(
    model: Path, monkeypatch: pytest.MonkeyPatch, number: int, at: Address, peer: Address
) -> AsyncIterator[Started]:
    """Stage `number` of 2."""
    made = Started(Gate(0.1, 0.5), Phases(number))
    real: Callable[..., Any] = load_stage

    def gated(*args: Any, progress: Progress, **how: Any) -> Any:
        return real(*args, progress=made.gate.around(progress), **how)

    monkeypatch.setattr("gardener.stages.start.load_stage", gated)
    settings = NodeSettings(
        stage=number,
        peer=str(peer),
        listen=str(at),
        model=str(model),
        revision=None,
        stages=2,
        layers=None,
        dtype="float32",
        device="cpu",
        threads=1,
        quant="none",
        patience=20.0,
    )
    task = asyncio.create_task(serve(settings, made.said.append, made.nodes.append, made.phases))
    try:
        yield made
    finally:
        for _ in range(2):
            made.gate.on()
        task.cancel()
        await asyncio.wait([task])


def share(sentence: str) -> int:
    """The percents in it."""
    return int(sentence.rpartition(" %")[0].rpartition(" ")[2])


def test_it_says_how_far_it_is_and_then_serves_at_the_same_socket(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with ring(2, start=False) as made:
            at = made.address(1)
            async with started(model, monkeypatch, 1, at, made.address(2)) as it:
                view = NodeWatch(it.phases, "cpu", str(at), "there")
                await it.held()
                ear, whys = Ear(), list[str]()

                async def dialled() -> None:
                    ear.links.append(
                        await dial(
                            at,
                            holder_card(model),
                            ear,
                            admit=lambda peer: None,
                            patience=20.0,
                            waiting=whys.append,
                            whom="stage 1",
                        )
                    )

                task = asyncio.create_task(dialled())
                prefix = f"waiting for stage 1 at {at}: refused the link: stage 1 is loading"
                await until(lambda: whys)
                assert whys[0].startswith(prefix)
                assert view.status(1.0).state.startswith("loading its weights, ")
                it.gate.on()
                await it.held()
                first, seen = share(whys[0]), len(whys)
                await until(lambda: len(whys) > seen)
                assert 10 <= first < 50 <= share(whys[-1])
                it.gate.on()
                await task
                assert all("nothing listens" not in why for why in whys)
                met = ear.links[0].peer  # which tells where it dials, too
                assert msgspec.structs.replace(met, peer="") == it.nodes[0].card
                await until(lambda: it.nodes[0].upstream)
                assert view.status(1.0).state == "ready"
        assert it.said[0] == f"listening at {at}"
        assert it.said.count(it.said[0]) == 1

    run(scenario)


def test_the_holder_learns_what_a_stage_behind_another_does(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with ring(2, start=False) as made:
            made.start(1)
            async with started(model, monkeypatch, 2, made.address(2), made.address(0)) as it:
                await it.held()
                holder = made.holder()
                task = asyncio.create_task(holder.connect())
                sentence = f"stage 1 is waiting for stage 2 at {made.address(2)}: refused the link"
                told = f"{sentence}: stage 2 is loading its weights, "
                await until(lambda: any(line.startswith(told) for line in made.said))
                task.cancel()
                await asyncio.wait([task])
                await holder.close()

    run(scenario)


def test_a_stage_that_cannot_be_loaded_says_why_and_lets_go_of_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with ring(2, start=False) as made:
            at = made.address(1)
            for _ in range(2):
                settings = NodeSettings(
                    stage=1,
                    peer=str(made.address(2)),
                    listen=str(at),
                    model=str(tmp_path),
                    revision=None,
                    stages=2,
                    layers=None,
                    dtype="float32",
                    device="cpu",
                    threads=1,
                    quant="none",
                    patience=20.0,
                )
                with pytest.raises(UserError, match=r"config\.json"):
                    await serve(settings, lambda line: None)

    run(scenario)
