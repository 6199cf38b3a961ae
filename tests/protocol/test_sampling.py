"""How to pick: what may be said, and what comes over the wire."""

import math
import re
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import samplings

from gardener.errors import RemoteError
from gardener.protocol.messages import Open
from gardener.protocol.sampling import (
    GREEDY,
    LOWEST,
    MAX_BIASED,
    MAX_ENDS,
    MAX_SEED,
    MAX_TOKEN,
    Sampling,
)
from gardener.protocol.wire import decode, encode

REALS = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "frequency_penalty": (-100.0, 100.0),
}
WHOLE = {"top_k": MAX_TOKEN, "min_tokens": MAX_TOKEN, "seed": MAX_SEED}

WRONG: list[tuple[dict[str, Any], str]] = [
    *(
        ({name: value}, f"{name} is {value}: it lies between {low:g} and {high:g}")
        for name, (low, high) in REALS.items()
        for value in (low - 0.001, high + 0.001, math.nan, math.inf, -math.inf)
    ),
    *(
        ({name: value}, f"{name} is {value}: it lies between 0 and {most}")
        for name, most in WHOLE.items()
        for value in (-1, most + 1)
    ),
    ({"temperature": 0.0009}, "temperature is 0.0009: take 0 for no noise, or at least 0.001"),
    ({"top_p": 0.0}, "top_p is 0, which leaves no token: take more, or temperature 0"),
    *(
        ({"logit_bias": ((3, bias),)}, f"logit_bias of token 3 is {bias}: it lies between -100 and")
        for bias in (-100.5, 100.5, math.nan, math.inf)
    ),
    *(
        ({"logit_bias": ((token, 1.0),)}, f"a token of logit_bias is {token}: it lies between 0")
        for token in (-1, MAX_TOKEN + 1)
    ),
    *(
        ({"eos": (2, token)}, f"a token of eos is {token}: it lies between 0 and {MAX_TOKEN}")
        for token in (-1, MAX_TOKEN + 1)
    ),
    ({"logit_bias": ((3, 1.0), (5, 0.0), (3, 2.0))}, "logit_bias names token 3 more than once"),
    (
        {"logit_bias": tuple((token, 1.0) for token in range(MAX_BIASED + 1))},
        "logit_bias names 1025 tokens: take 1024 at most",
    ),
    ({"eos": tuple(range(MAX_ENDS + 1))}, "eos names 65 tokens: take 64 at most"),
]


@pytest.mark.parametrize(("fields", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_what_cannot_be_is_refused_with_the_field_and_the_value(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Sampling(**fields)


@pytest.mark.parametrize(("name", "ends"), REALS.items(), ids=REALS)
def test_both_ends_of_a_range_may_be(name: str, ends: tuple[float, float]) -> None:
    low = LOWEST if name == "top_p" else ends[0]  # of which 0 leaves no token
    for value in (low, ends[1]):
        assert getattr(Sampling(**{name: value}), name) == value  # type: ignore[arg-type]


def test_the_largest_of_everything_may_be() -> None:
    assert Sampling(temperature=LOWEST).temperature == LOWEST
    for name, most in WHOLE.items():
        for value in (0, most):
            assert getattr(Sampling(**{name: value}), name) == value  # type: ignore[arg-type]
    biases = tuple((token, 100.0) for token in (*range(MAX_BIASED - 1), MAX_TOKEN))
    ends = (*range(MAX_ENDS - 1), MAX_TOKEN)
    most_of_all = Sampling(logit_bias=biases, eos=ends)
    assert over_the_wire(most_of_all) == most_of_all


def test_what_is_not_said_changes_nothing() -> None:
    assert Sampling() == GREEDY
    assert (GREEDY.is_greedy, GREEDY.changes_nothing) == (True, True)
    assert (GREEDY.reads_text, GREEDY.reads_answer) == (False, False)


@pytest.mark.parametrize(
    ("fields", "greedy", "text", "answer", "nothing"),
    [
        ({"temperature": 0.5}, False, False, False, False),
        ({"repetition_penalty": 1.1}, True, True, False, False),
        ({"repetition_penalty": 0.9}, True, True, False, False),
        ({"presence_penalty": 0.1}, True, True, True, False),
        ({"presence_penalty": -0.1}, True, True, True, False),
        ({"frequency_penalty": 0.1}, True, True, True, False),
        ({"logit_bias": ((3, 0.5),)}, True, False, False, False),
        ({"min_tokens": 4, "eos": (2,)}, True, False, False, False),
        ({"temperature": 0.5, "presence_penalty": 0.1}, False, True, True, False),
        # Where the likeliest token is taken, it does not matter which of the others are kept.
        ({"top_p": 0.5, "top_k": 3, "min_p": 0.1, "seed": 4}, True, False, False, True),
    ],
)
def test_what_a_pick_depends_on(
    fields: dict[str, Any], greedy: bool, text: bool, answer: bool, nothing: bool
) -> None:
    sampling = Sampling(**fields)
    found = (sampling.is_greedy, sampling.reads_text, sampling.reads_answer)
    assert (*found, sampling.changes_nothing) == (greedy, text, answer, nothing)


@given(samplings())
def test_a_seed_is_drawn_where_noise_needs_one(sampling: Sampling) -> None:
    seeded = sampling.seeded()
    if sampling.is_greedy or sampling.seed is not None:
        assert seeded is sampling
    else:
        assert seeded.seed is not None
        assert msgspec.structs.replace(seeded, seed=None) == sampling
        assert seeded.seeded() is seeded


def test_every_draw_of_a_seed_is_another_one() -> None:
    noisy = Sampling(temperature=1.0)
    assert len({noisy.seeded().seed for _ in range(20)}) > 15


# --- over the wire ---------------------------------------------------------------------------


def over_the_wire(sampling: Sampling) -> Sampling:
    heard = decode(encode(Open(1, 2, 3, sampling=sampling))[4:])
    assert isinstance(heard, Open)
    return heard.sampling


@given(samplings())
def test_it_survives_the_wire(sampling: Sampling) -> None:
    seeded = sampling.seeded()
    assert over_the_wire(seeded) == seeded


def said_by_a_peer(**fields: object) -> bytes:
    """An Open whose sampling is sound but for these fields."""
    builtins = list(msgspec.to_builtins(Open(1, 2, 3), builtin_types=(bytes,)))
    at = 1 + [field.name for field in msgspec.structs.fields(Open)].index("sampling")
    sampling = dict(zip(Sampling.__struct_fields__, builtins[at], strict=True))
    builtins[at] = list((sampling | fields).values())
    packed: bytes = msgpack.packb(builtins)
    return packed


@pytest.mark.parametrize(("fields", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_a_peer_that_says_what_cannot_be_is_refused(fields: dict[str, Any], said: str) -> None:
    if fields.get("seed", 0) > MAX_SEED:
        fields = {"seed": 2**64 - 1}  # the largest that the wire can carry
    decode(said_by_a_peer())  # the rest of it is sound
    with pytest.raises(RemoteError, match="not a valid Open"):
        decode(said_by_a_peer(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": "1"},
        {"temperature": None},
        {"temperature": True},
        {"top_k": 1.5},
        {"seed": 1.0},
        {"logit_bias": [[3]]},
        {"logit_bias": [[3, 1.0, 2.0]]},
        {"logit_bias": [3, 1.0]},
        {"eos": 2},
        {"eos": [None]},
        {"something new": 0},
    ],
    ids=str,
)
def test_a_peer_that_says_it_in_another_way_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RemoteError, match="not a valid Open"):
        decode(said_by_a_peer(**fields))


def test_noise_without_a_seed_is_refused() -> None:
    with pytest.raises(RemoteError, match="not a valid Open: noise without a seed"):
        decode(said_by_a_peer(temperature=0.7))
    decode(said_by_a_peer(temperature=0.7, seed=0))


@given(st.sampled_from(sorted(REALS)), st.floats())
def test_a_peer_says_a_number_of_the_range_or_is_refused(name: str, value: float) -> None:
    """Nothing else comes of it, whatever the number."""
    try:
        heard = decode(said_by_a_peer(**{name: value}, seed=1))
    except RemoteError:
        return
    assert isinstance(heard, Open)
    low, high = REALS[name]
    assert low <= getattr(heard.sampling, name) <= high
