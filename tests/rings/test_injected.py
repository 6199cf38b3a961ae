"""Rings in which things go wrong as a seed says: texts right or an honest error, nothing left.

The many runs are `python -m benchmarks.injected`; here are a few of them.
"""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from gardener.holder.holder import Holder
from gardener.rings.simulate.injected.boundaries import at_each_boundary, undisturbed
from gardener.rings.simulate.injected.case import draw
from gardener.rings.simulate.injected.faults import KINDS, Fault, When
from gardener.rings.simulate.injected.machines import (
    Death,
    Machine,
    MachineLoop,
    MachineNetwork,
)
from gardener.rings.simulate.injected.run import play
from gardener.rings.simulate.network import LinkConditions

RUNS = 80


@pytest.mark.parametrize("first", range(0, RUNS, 20))
def test_texts_are_right_or_end_with_an_honest_error_and_nothing_is_left(first: int) -> None:
    for seed in range(first, first + 20):
        outcome = play(draw(seed))
        assert outcome.wrong == [], f"{outcome.case}\npython -m benchmarks.injected --one {seed}"


@pytest.mark.parametrize("part", range(4))
def test_a_machine_may_die_at_each_message_boundary(part: int) -> None:
    for number, case in enumerate(at_each_boundary()):
        if number % 4 == part:
            outcome = play(case)
            assert outcome.wrong == [], str(case)
            assert outcome.struck
            if outcome.struck == ["crash"]:
                assert (outcome.right, outcome.lost) == (2, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_goes_wrong_takes_place(kind: str) -> None:
    fault = Fault(kind, int(not kind.startswith("holder")), 0.4, When("at", 0.09))
    outcome = play(undisturbed(faults=[fault]))
    assert outcome.wrong == []
    assert outcome.struck == [kind]


def test_a_seed_reproduces_its_run_in_any_process() -> None:
    code = (
        "from gardener.rings.simulate.injected.case import draw\n"
        "from gardener.rings.simulate.injected.run import play\n"
        "print(play(draw(27)).digest)"
    )
    seeds = {"PYTHONHASHSEED": "7"}
    told = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **seeds}, capture_output=True, check=True
    ).stdout
    assert told.split() == [play(draw(27)).digest.encode()]


def test_the_oracle_sees_a_wrong_text_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    case = undisturbed(faults=[Fault("crash", 1, 0.4, When("at", 0.09))])
    (ask,) = case.asks
    text = (*ask.text[:3], 0, *ask.text[4:])
    played = play(case)
    assert played.wrong == []
    other = play(replace(case, asks=(replace(ask, text=text),)))
    assert other.digest != played.digest

    monkeypatch.setattr(Holder, "mended", lambda self: None)
    assert any("nothing happens" in each for each in play(case).wrong)


def test_a_machine_that_stands_still_hears_then_does_what_was_due() -> None:
    """What arrived comes before the timers, as after SIGCONT; a timer that what arrived has called
    off does not ring."""
    done: list[str] = []
    timer: asyncio.TimerHandle

    class Ear(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            done.append(data.decode())
            timer.cancel()

    async def main() -> None:
        nonlocal timer
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MachineLoop)
        loop.network = MachineNetwork(LinkConditions(delay=0.01), 0, {})
        here, there = Machine(1), Machine(2)
        listening = there.run(asyncio.ensure_future, loop.create_server(Ear, "oak", 7000))
        await listening
        dialling = here.run(
            asyncio.ensure_future, loop.create_connection(asyncio.Protocol, "oak", 7000)
        )
        transport, _ = await dialling
        timer = there.run(loop.call_later, 0.1, done.append, "called off")
        there.run(loop.call_later, 0.2, done.append, "rings")
        there.freeze()
        await asyncio.sleep(0.5)
        transport.write(b"heard")
        await asyncio.sleep(0.5)
        assert done == []
        there.thaw()
        await asyncio.sleep(0.1)
        assert done == ["heard", "rings"]
        there.die(Death.CLOSED)
        await asyncio.sleep(0.1)
        assert transport.is_closing()
        with pytest.raises(ConnectionRefusedError):
            await here.run(
                asyncio.ensure_future, loop.create_connection(asyncio.Protocol, "oak", 7000)
            )

    with asyncio.Runner(loop_factory=MachineLoop) as runner:
        runner.run(main())
