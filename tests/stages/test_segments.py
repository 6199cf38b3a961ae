"""Segments with fewer rows, and their verdicts."""

import msgspec
import pytest

from gardener.protocol.features import rows_of
from gardener.protocol.messages import Segment, Timing
from gardener.protocol.tensors import Tensor
from gardener.stages.segments import keep_rows, tensor_bytes, verdict_of

ONE = Tensor("float16", (3, 1), b"aabbcc")
TWO = Tensor("float16", (3, 2), b"aaaabbbbcccc")
TOKENS = Segment(9, 4, (5, 6, 7), (4, 5, 5), (10, 11, 11), (50, 60, 70), None, ())
HIDDEN = msgspec.structs.replace(TOKENS, hidden=TWO, features=(ONE,))
TIMES = (Timing(1, 2),)


def test_rows_are_taken_of_every_tap() -> None:
    taken = rows_of((ONE, TWO), [2, 0])
    assert [tensor.data for tensor in taken] == [b"ccaa", b"ccccaaaa"]
    assert [tensor.shape for tensor in taken] == [(2, 1), (2, 2)]
    assert rows_of((), [1]) == ()


def test_a_row_that_stays_keeps_all_that_is_its_own() -> None:
    assert keep_rows(TOKENS, [0, 2]) == Segment(9, 4, (5, 7), (4, 5), (10, 11), (50, 70), None, ())
    kept = keep_rows(HIDDEN, [1])
    assert (kept.ids, kept.parents, kept.positions, kept.tokens) == ((6,), (5,), (11,), (60,))
    assert kept.hidden == Tensor("float16", (1, 2), b"bbbb")
    assert kept.features == (Tensor("float16", (1, 1), b"bb"),)
    assert keep_rows(HIDDEN, [0, 1, 2]) is HIDDEN


@pytest.mark.parametrize("segment", [TOKENS, HIDDEN])
def test_a_segment_without_rows_carries_nothing(segment: Segment) -> None:
    assert keep_rows(segment, []) == Segment(9, 4, (), (), (), (), None, ())


def test_a_verdict_speaks_of_judged_rows_that_live() -> None:
    verdict = verdict_of(HIDDEN, [0, 1, 2], [8, 9, 8], [0, 2], TIMES, (ONE,))
    assert (verdict.request, verdict.seq, verdict.times) == (9, 4, TIMES)
    assert (verdict.ids, verdict.picks) == ((5, 7), (8, 8))
    assert [tensor.data for tensor in verdict.features] == [b"aacc"]


def test_a_verdict_brings_the_features_of_the_prompt_that_is_not_judged() -> None:
    verdict = verdict_of(HIDDEN, [2], [8], [0, 1, 2], TIMES, (ONE,))
    assert (verdict.ids, verdict.picks) == ((7,), (8,))
    assert [tensor.data for tensor in verdict.features] == [b"aabbcc"]
    verdict = verdict_of(HIDDEN, [], [], [0, 1, 2], TIMES, (ONE,))
    assert (verdict.ids, verdict.picks) == ((), ())
    assert [tensor.data for tensor in verdict.features] == [b"aabbcc"]


def test_a_verdict_of_rows_that_all_died_is_empty() -> None:
    verdict = verdict_of(HIDDEN, [0, 1, 2], [8, 9, 8], [], TIMES, ())
    assert (verdict.ids, verdict.picks, verdict.features) == ((), (), ())


def test_a_segment_is_as_large_as_its_tensors() -> None:
    assert tensor_bytes(TOKENS) == 0
    assert tensor_bytes(HIDDEN) == 12 + 6
