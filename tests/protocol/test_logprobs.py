"""Log probabilities in a verdict: packed at one end, held to what was asked for at the other."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gardener.errors import RemoteError
from gardener.protocol.logprobs import TokenLogprobs, brought, packed
from gardener.protocol.messages import Verdict
from gardener.protocol.sampling import MAX_BEST
from gardener.protocol.tensors import Tensor
from gardener.protocol.wire import decode, encode

TOLD = [
    TokenLogprobs(-0.5, ((7, -0.25), (9, -2.5))),
    TokenLogprobs(-math.inf, ((2**31 - 1, -0.125), (0, -4.0))),
    TokenLogprobs(0.0, ((7, 0.0), (8, -1000.0))),
]
"""Of three rows. All numbers are such as float32 holds."""


def verdict(rows: list[TokenLogprobs] | None, ids: int | None = None) -> Verdict:
    """As it comes off the wire; `None`: one that brings no log probabilities."""
    judged = tuple(range(10, 10 + (len(rows or ()) if ids is None else ids)))
    logprobs, likeliest = (None, b"") if rows is None else packed(rows)
    sent = Verdict(1, 5, judged, judged, (), (), logprobs, likeliest)
    heard = decode(encode(sent)[4:])
    assert heard == sent
    assert isinstance(heard, Verdict)
    return heard


def cut(best: int) -> list[TokenLogprobs]:
    return [TokenLogprobs(row.pick, row.best[:best]) for row in TOLD]


@pytest.mark.parametrize("best", [0, 1, 2])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_each_pick_keeps_what_is_said_of_it(rows: int, best: int) -> None:
    told = cut(best)[:rows]
    assert brought(verdict(told), best) == tuple(told)


logs = st.floats(max_value=0, width=32, allow_nan=False)


@given(st.data(), st.integers(1, 5), st.integers(0, MAX_BEST))
def test_all_that_may_be_told_survives_the_wire(data: st.DataObject, rows: int, best: int) -> None:
    pairs = st.tuples(st.integers(0, 2**31 - 1), logs)
    row = st.builds(TokenLogprobs, logs, st.lists(pairs, min_size=best, max_size=best).map(tuple))
    told = data.draw(st.lists(row, min_size=rows, max_size=rows))
    assert brought(verdict(told), best) == tuple(told)


def test_the_bytes_are_those_of_the_page() -> None:
    tensor, likeliest = packed(TOLD[:1])
    assert tensor == Tensor("float32", (1, 3), struct.pack("<3f", -0.5, -0.25, -2.5))
    assert likeliest == struct.pack("<2i", 7, 9)


def test_where_nobody_asked_nothing_comes() -> None:
    assert brought(verdict(None, ids=3), None) == ()
    assert brought(verdict(None, ids=0), None) == ()


@pytest.mark.parametrize("best", [0, 2, MAX_BEST])
def test_a_verdict_whose_rows_all_died_has_nothing_to_tell(best: int) -> None:
    assert brought(verdict(None, ids=0), best) == ()
    assert brought(verdict([]), best) == ()  # nor does a tensor without rows


@pytest.mark.parametrize(
    ("came", "best", "said"),
    [
        (verdict(None, ids=3), 0, r"log probabilities None, due are \(3, 1\)"),
        (verdict(None, ids=1), 2, r"log probabilities None, due are \(1, 3\)"),
        (verdict(cut(0)), None, r"log probabilities \(3, 1\), due are none"),
        (verdict(cut(2)), None, r"log probabilities \(3, 3\), due are none"),
        (verdict([]), None, r"log probabilities \(0, 1\), due are none"),
        (verdict(cut(2)), 1, r"log probabilities \(3, 3\), due are \(3, 2\)"),
        (verdict(cut(1)), 2, r"log probabilities \(3, 2\), due are \(3, 3\)"),
        (verdict(cut(1)), 0, r"log probabilities \(3, 2\), due are \(3, 1\)"),
    ],
)
def test_what_was_not_asked_for_or_does_not_come_is_refused(
    came: Verdict, best: int | None, said: str
) -> None:
    with pytest.raises(RemoteError, match=f"segment 5 came back with {said}"):
        brought(came, best)


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([TokenLogprobs(math.nan)], 0),
        ([TokenLogprobs(-1.0, ((3, math.nan),))], 1),
        ([TokenLogprobs(-1.0, ((3, -1.0), (-3, -2.0)))], 2),
    ],
)
def test_what_is_no_number_or_no_token_is_refused(rows: list[TokenLogprobs], best: int) -> None:
    with pytest.raises(RemoteError, match="segment 5 came back with log probabilities"):
        brought(verdict(rows), best)
