from typing import Any

import msgspec
import pytest

from gardener.protocol.cards import (
    arithmetic,
    exactness,
    mismatch,
    near_tie,
    ring_arithmetic,
    ring_problem,
    same_model,
    with_link,
)
from gardener.protocol.messages import Card


def card(stage: int, first: int, end: int, **changes: Any) -> Card:
    plain = Card(stage, "x", "1.0", first, end, 32, 64, "llama:abc", "bfloat16", "none", 0)
    return msgspec.structs.replace(plain, **changes)


HOLDER = card(0, 0, 0)
RING = [HOLDER, card(1, 0, 18), card(2, 18, 30), card(3, 30, 32)]


def test_a_whole_ring_serves() -> None:
    assert ring_problem(RING) is None
    assert ring_problem([HOLDER, card(1, 0, 32)]) is None


def test_an_empty_ring_does_not() -> None:
    assert ring_problem([HOLDER]) == "the ring has no stage that holds layers"
    assert ring_problem([]) == "the ring has no stage that holds layers"


PROBLEMS = {
    "gap": (
        [HOLDER, card(1, 0, 18), card(2, 20, 30), card(3, 30, 32)],
        "stage 2 holds layers 20-29 but stage 1 ends at 17: layers 18-19 are missing",
    ),
    "gap of one": (
        [HOLDER, card(1, 0, 18), card(2, 19, 32)],
        "stage 2 holds layers 19-31 but stage 1 ends at 17: layer 18 is missing",
    ),
    "overlap": (
        [HOLDER, card(1, 0, 18), card(2, 17, 32)],
        "stage 2 holds layers 17-31 but stage 1 ends at 17: they overlap",
    ),
    "stage left out": (
        [HOLDER, card(1, 0, 18), card(3, 18, 32)],
        "stage 3 cannot follow stage 1: give stage 1 the address of stage 2 as its --peer",
    ),
    "same stage twice": (
        [HOLDER, card(1, 0, 18), card(1, 18, 32)],
        "stage 1 cannot follow stage 1: give stage 1 the address of stage 2 as its --peer",
    ),
    "holder dials stage 2": (
        [HOLDER, card(2, 0, 32)],
        "the holder's --peer must be stage 1, but stage 2 answers there",
    ),
    "late start": (
        [HOLDER, card(1, 2, 32)],
        "stage 1 starts at layer 2: layers 0-1 are missing",
    ),
    "early end": (
        [HOLDER, card(1, 0, 18), card(2, 18, 31)],
        "stage 2 hands over to the holder but ends at layer 30: layer 31 is missing",
    ),
    "other model": (
        [HOLDER, card(1, 0, 18), card(2, 18, 32, model="qwen:abc")],
        "stage 1 and stage 2 hold different models (llama and qwen): give both the same --model",
    ),
    "other weights": (
        [HOLDER, card(1, 0, 18), card(2, 18, 32, model="llama:def")],
        "stage 1 and stage 2 hold different weights of one kind of model (abc and def): "
        "give both the same --model",
    ),
    "a quantised split for a holder of the whole model": (
        [HOLDER, card(1, 0, 18, model="int4-32-int8-llama:abc")],
        "stage 1 has a folder that `gardener split --quant int4` wrote, and the holder the model "
        "that it was made from: give the holder the folder holder/ of the same split",
    ),
    "a quantised split beside the whole model": (
        [
            card(0, 0, 0, model="int8-32-none-llama:"),
            card(1, 0, 18, model="int8-32-none-llama:"),
            card(2, 18, 32, quant="int8"),
        ],
        "stage 1 has a folder that `gardener split --quant int8` wrote, and stage 2 the model "
        "that it was made from: give stage 2 the folder stage-2/ of the same split",
    ),
    "two quantised splits": (
        [
            card(0, 0, 0, model="int4-32-int8-llama:abc"),
            card(1, 0, 18, model="int4-64-int8-llama:abc"),
        ],
        "the holder and stage 1 have folders of different splits (int4-32-int8 and int4-64-int8): "
        "give both those of the same one",
    ),
    "a quantised split of another model": (
        [HOLDER, card(1, 0, 18, model="int4-32-int8-qwen:abc")],
        "the holder and stage 1 hold different models (llama and qwen): give both the same --model",
    ),
    "other depth": (
        [HOLDER, card(1, 0, 18), card(2, 18, 32, layers=40)],
        "stage 1 and stage 2 hold different models (of 32 and 40 layers): "
        "give both the same --model",
    ),
    "other dtype": (
        [HOLDER, card(1, 0, 18), card(2, 18, 32, dtype="float16")],
        "stage 1 computes in bfloat16 but stage 2 in float16: give both the same --dtype",
    ),
    "other quantisation": (
        [HOLDER, card(1, 0, 18), card(2, 18, 32, quant="int8")],
        "stage 1 computes in none but stage 2 in int8: give both the same --quant",
    ),
    "other head, from which other layers follow": (
        [HOLDER, card(1, 0, 18, head_quant="none"), card(2, 17, 32, head_quant="int8")],
        "stage 1 computes the head in none but stage 2 in int8: give both the same --quant-head",
    ),
    "other version": (
        [HOLDER, card(1, 0, 18), card(2, 18, 32, version="2.0")],
        "stage 1 runs gardener 1.0 but stage 2 runs 2.0: install the same version on both",
    ),
}


@pytest.mark.parametrize(("cards", "sentence"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_a_problem_is_one_sentence(cards: list[Card], sentence: str) -> None:
    assert ring_problem(cards) == sentence


def test_the_holder_computes_nothing_so_its_dtype_does_not_matter() -> None:
    assert mismatch(card(0, 0, 0, dtype="float32", quant="int8"), card(1, 0, 18)) is None


def test_neighbours_check_only_their_own_seam() -> None:
    assert mismatch(card(1, 0, 18), card(2, 18, 19)) is None
    assert mismatch(card(3, 30, 32), HOLDER) is None


def test_fingerprints_compare_by_content_where_both_know_it() -> None:
    assert same_model("llama:abc", "llama:abc")
    assert same_model("llama:", "llama:abc")
    assert not same_model("llama:abc", "llama:abd")
    assert not same_model("llama:", "qwen:")


def test_a_card_shows_what_was_measured_of_the_link() -> None:
    shown = with_link(card(1, 0, 18), 0.02, 1e9)
    assert (shown.delay, shown.bandwidth) == (10_000, 10**9)
    assert with_link(shown, None, None) == card(1, 0, 18)


SAID = {
    "exact": (
        [card(1, 0, 18), card(2, 18, 32)],
        0.0,
        "the ring is exact: a row's numbers do not depend on what is computed beside it",
    ),
    "bfloat16": (
        [card(1, 0, 18, spread=1e-4), card(2, 18, 32, spread=3e-3)],
        0.5,
        "near ties may differ: two scores closer than 0.5 may change places, for what is "
        "computed beside a row changes it by up to 3e-03 (stage 2, bfloat16)",
    ),
    "float16": (
        [card(1, 0, 18), card(2, 18, 32, spread=3e-4, dtype="float16")],
        0.0625,
        "near ties may differ: two scores closer than 0.0625 may change places, for what is "
        "computed beside a row changes it by up to 3e-04 (stage 2, float16)",
    ),
    "float32": (
        [card(1, 0, 32, spread=4e-7, dtype="float32")],
        1e-4,
        "near ties may differ: two scores closer than 0.0001 may change places, for what is "
        "computed beside a row changes it by up to 4e-07 (stage 1, float32)",
    ),
    "rows in 8 bits": (
        [card(1, 0, 32, spread=4e-7, dtype="float32", quant="int4")],
        0.5,
        "near ties may differ: two scores closer than 0.5 may change places, for what is "
        "computed beside a row changes it by up to 4e-07 (stage 1, float32 int4)",
    ),
    "a head in 8 bits, at another stage": (
        [
            card(1, 0, 18, spread=4e-7, dtype="float32", head_quant="int8"),
            card(2, 18, 32, dtype="float32", head_quant="int8"),
        ],
        0.5,
        "near ties may differ: two scores closer than 0.5 may change places, for what is "
        "computed beside a row changes it by up to 4e-07 (stage 1, float32, head int8)",
    ),
}


@pytest.mark.parametrize(("cards", "near", "sentence"), SAID.values(), ids=SAID.keys())
def test_a_ring_is_as_exact_as_the_least_of_its_stages(
    cards: list[Card], near: float, sentence: str
) -> None:
    assert exactness(cards) == sentence
    assert near_tie(cards) == near
    assert exactness(cards[::-1]) == sentence


def test_a_stage_does_not_speak_for_the_ring() -> None:
    assert exactness([card(1, 0, 18)], "this stage").startswith("this stage is exact: ")


@pytest.mark.parametrize(
    ("quant", "head", "layers", "whole"),
    [
        ("none", "none", "bfloat16", "bfloat16"),
        ("int4", "int8", "bfloat16 int4", "bfloat16 int4, head int8"),
        ("int8", "int8", "bfloat16 int8", "bfloat16 int8"),
        ("nf4", "none", "bfloat16 nf4", "bfloat16 nf4, head not quantised"),
        ("none", "int8", "bfloat16", "bfloat16, head int8"),
    ],
)
def test_what_a_stage_computes_in_is_told_with_the_head_where_it_is(
    quant: str, head: str, layers: str, whole: str
) -> None:
    kinds = {"quant": quant, "head_quant": head}
    cards = [card(1, 0, 18, **kinds), card(2, 18, 32, **kinds)]
    assert [arithmetic(each) for each in cards] == [layers, whole]
    assert ring_arithmetic(cards) == whole
