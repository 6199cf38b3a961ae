"""Features of rows, held to what was asked for."""

import msgspec
import pytest

from gardener.errors import RemoteError
from gardener.protocol.features import Features, received
from gardener.protocol.messages import Card, Verdict
from gardener.protocol.tensors import Tensor

CARD = Card(1, "oak", "0.1", 0, 4, 4, 1, "m", "float16", "none", 0)

ONE = Tensor("float16", (3, 1), b"aabbcc")


def test_rows_of_the_prompt_stand_before_those_that_were_judged() -> None:
    features = Features(1, (8, 9), (ONE,))
    assert [tensor.data for tensor in features.prompt] == [b"aa"]
    assert [tensor.data for tensor in features.of([9, 8])] == [b"ccbb"]
    assert Features(0, (7, 8, 9), (ONE,)).prompt == ()


def test_where_nobody_asked_there_are_none() -> None:
    features = Features(2, (7,))
    assert features.prompt == ()
    assert features.of([7, 8]) == ()


def test_a_verdict_brings_as_many_taps_and_rows_as_were_asked_for() -> None:
    verdict = Verdict(1, 5, (8, 9), (3, 4), (), (ONE,))
    assert received(verdict, 1, (2,), CARD) == Features(1, (8, 9), (ONE,))
    dead = Verdict(1, 5, (), (), ())
    empty = Tensor("float16", (0, 1), b"")
    assert received(dead, 0, (2,), CARD) == Features()
    assert received(msgspec.structs.replace(dead, features=(empty,)), 0, (2,), CARD).of([]) == (
        empty,
    )
    for lead, taps in ((0, (2,)), (1, (2, 4)), (1, ())):
        with pytest.raises(RemoteError, match="segment 5 came back with features"):
            received(verdict, lead, taps, CARD)
    with pytest.raises(RemoteError, match=r"asked for were taps \(2,\) of 3 rows"):
        received(Verdict(1, 5, (8, 9), (3, 4), ()), 1, (2,), CARD)
