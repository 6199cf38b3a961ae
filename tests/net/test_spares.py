"""Which spare is asked to step in the place of a stage that stays away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from loopback import Ear, card, run
from processes import free_ports

from gardener.errors import PeerLost, UserError
from gardener.net.address import Address
from gardener.net.dial import dial
from gardener.net.listen import refuse_all
from gardener.net.spares import Spares, Turns, parse_spares
from gardener.protocol.messages import Card
from gardener.stages.sight import UNKNOWN

ONE, TWO, THREE = (Address(f"10.0.0.{number}", 7000) for number in (7, 8, 9))
SPARES = Spares((ONE, TWO, THREE), 5.0, card(2, 3))
STEPS_IN = "refused the link: spare 1 steps in the place of stage 2: it is loading its weights"
REFUSES = "refused the link: spare 1 cannot step in the place of stage 2: it is not known where"
ABSENT = "connection refused"


def test_a_list_is_read_and_names_none_twice() -> None:
    assert parse_spares("10.0.0.7:7000, 10.0.0.8:7000", 5.0) == Spares((ONE, TWO), 5.0)
    assert parse_spares("", 5.0) == Spares((), 5.0)
    with pytest.raises(UserError, match=r"--spares names a:1 more than once"):
        parse_spares("a:1,b:1,a:1", 5.0)


def test_those_that_refuse_or_do_not_answer_let_the_next_one_have_its_turn() -> None:
    turns = Turns(SPARES, 100.0)
    assert [turns.due(now) for now in (100.0, 104.9, 105.0)] == [(), (), (ONE,)]
    assert not turns.answered(ONE, ABSENT, 105.0)
    assert [turns.due(now) for now in (109.9, 110.0)] == [(ONE,), (ONE, TWO)]
    assert not turns.answered(TWO, REFUSES, 110.0)
    assert [turns.due(now) for now in (114.9, 115.0)] == [(ONE, TWO), (ONE, TWO, THREE)]
    assert turns.due(999.0) == (ONE, TWO, THREE)


def test_no_other_is_asked_while_one_steps_in_however_long_that_takes() -> None:
    turns = Turns(SPARES, 0.0)
    for now in (5.0, 60.0, 600.0):
        assert turns.due(now) == (ONE,)
        assert turns.answered(ONE, STEPS_IN, now)
        assert turns.due(now + 4.0) == (ONE,)
    assert not turns.answered(ONE, ABSENT, 604.0)  # it was not heard
    assert turns.due(608.9) == (ONE,)
    assert turns.answered(ONE, STEPS_IN, 608.9)
    for now in (700.0, 702.0):
        assert not turns.answered(ONE, ABSENT, now)  # it died
    assert [turns.due(now) for now in (704.9, 705.0)] == [(ONE,), (ONE, TWO)]


def test_one_before_it_in_the_list_is_not_asked_either() -> None:
    turns = Turns(SPARES, 0.0)
    turns.due(5.0)
    assert turns.due(10.0) == (ONE, TWO)
    assert turns.answered(TWO, STEPS_IN, 10.0)
    assert turns.due(14.0) == (TWO,)


def test_one_that_steps_in_the_place_of_another_stage_is_not_ours() -> None:
    for stage in (1, 20):
        other = STEPS_IN.replace("stage 2", f"stage {stage}")
        assert not Turns(SPARES, 0.0).answered(ONE, other, 5.0)
    assert not Turns(replace(SPARES, missed=None), 0.0).answered(ONE, STEPS_IN, 5.0)


def test_without_spares_nobody_is_asked() -> None:
    assert Turns(Spares(), 0.0).due(999.0) == ()


class Asked:
    """Stands where a spare does, and counts how often it is asked."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.times = 0

    def replace(self, asker: Card, missed: Card) -> str:
        self.times += 1
        return self.answer

    @contextlib.asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        at = Address("127.0.0.1", port)
        who = card(0, 3)
        listener = await refuse_all(at, who, lambda peer: "no", UNKNOWN.sight, replace=self.replace)
        try:
            yield
        finally:
            await listener.close()


@pytest.mark.parametrize(("answer", "others"), [(STEPS_IN, False), (REFUSES, True)])
def test_who_dials_keeps_to_the_one_that_steps_in(answer: str, others: bool) -> None:
    async def scenario() -> None:
        nobody, first, second = free_ports(3)
        spares = (Asked(answer.partition(": ")[2]), Asked(REFUSES))
        said: list[str] = []
        places = tuple(Address("127.0.0.1", port) for port in (first, second))
        async with spares[0].listening(first), spares[1].listening(second):
            with pytest.raises(PeerLost, match="gave up"):
                await dial(
                    Address("127.0.0.1", nobody),
                    card(1, 3),
                    Ear(),
                    admit=lambda peer: None,
                    patience=1.5,
                    waiting=said.append,
                    spares=Spares(places, 0.0, card(2, 3)),
                )
        assert spares[0].times > 1
        assert bool(spares[1].times) == others
        assert answer in said[-1]
        await asyncio.sleep(0)

    run(scenario)
