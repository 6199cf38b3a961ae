"""What is kept, what goes and what fits: bookkeeping of the holder."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gardener.errors import UserError
from gardener.holder.kept import KeptPrefixes, Shared, Start
from gardener.protocol.messages import Card

CARD = Card(1, "oak", "0.1", 0, 1, 1, 1, "m", "float32", "none", 0)
SYSTEM = list(range(100, 140))


def cards(*rooms: int) -> list[Card]:
    """Stages with memory for so many slots (0: not bounded); the bytes of a slot differ."""
    return [
        msgspec.structs.replace(CARD, stage=stage, kv_slot=10 * stage, kv_room=10 * stage * room)
        for stage, room in enumerate(rooms, 1)
    ]


def nothing(request: int) -> int:
    """Announced of a running request."""
    return 0


def kept(
    made: KeptPrefixes, request: int, text: list[int], rows: int | None = None
) -> tuple[int, ...]:
    """A request that began, and ended with this text."""
    made.began(request, text, 64, Start((), None))
    rows = len(text) - 1 if rows is None else rows
    return made.keep(request, text, rows, rows)


@pytest.mark.parametrize(("taps", "rows", "tokens"), [(False, 40, 40), (True, 39, 40)])
def test_a_common_beginning_is_found(taps: bool, rows: int, tokens: int) -> None:
    """With features a drafter needs one token more than the stages share rows."""
    made = KeptPrefixes(cards(0), taps)
    kept(made, 1, [*range(30), 1, 2, 3])
    kept(made, 2, [*SYSTEM, 1, 2, 3])
    assert made.longest([*SYSTEM, 9, 9], nothing) == Shared(2, rows, tokens)
    assert made.longest([5, *SYSTEM], nothing) is None
    assert made.longest(SYSTEM[:10], nothing) is None, "too little"


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    made = KeptPrefixes(cards(0), taps=False)
    kept(made, 1, [*SYSTEM, 1, 2])
    assert made.longest(SYSTEM, nothing) == Shared(1, 39, 39)


def test_no_more_is_shared_than_all_stages_have() -> None:
    made = KeptPrefixes(cards(0), taps=True)
    kept(made, 1, SYSTEM, rows=39)  # the root was not judged
    assert made.longest([*SYSTEM, 1, 2], nothing) == Shared(1, 39, 40)
    made.began(2, [*SYSTEM, 1, 2, 3], 64, Start((), None))
    assert made.longest([*SYSTEM, 1, 2, 9], lambda request: 20) == Shared(1, 39, 40)
    assert made.longest([*SYSTEM, 1, 2, 9], lambda request: 43) == Shared(2, 41, 42)


def test_what_a_longer_text_has_as_well_is_not_kept() -> None:
    made = KeptPrefixes(cards(0), taps=False)
    assert kept(made, 1, SYSTEM) == ()
    assert kept(made, 2, [*SYSTEM[:-1], 7, 8]) == ()
    assert kept(made, 3, [*SYSTEM, 1, 2]) == (1,)
    assert kept(made, 4, SYSTEM[:-3]) == (4,)
    assert kept(made, 5, SYSTEM[:12]) == (5,), "too little"
    assert made.kept == (2, 3)


def test_the_least_recently_used_go_first() -> None:
    made = KeptPrefixes(cards(0, 1000), taps=False, most=3)
    texts = {request: [request, *SYSTEM] for request in range(1, 5)}
    assert [kept(made, request, texts[request]) for request in (1, 2, 3)] == [(), (), ()]
    start = made.plan([*texts[1], 5], 64, nothing)
    assert start == Start((), Shared(1, 40, 40))
    made.began(9, [*texts[1], 5], 64, start)
    assert list(made.kept) == [2, 3, 1]
    assert kept(made, 4, texts[4]) == (2,)
    assert list(made.kept) == [3, 1, 4]
    assert made.used == 64 + 3 * 40
    start = made.plan([0, 0], 1000 - 64 - 60, nothing)
    assert start == Start((3, 1), None)
    made.began(10, [0, 0], 1000 - 64 - 60, start)
    assert list(made.kept) == [4]
    assert made.used == 1000 - 20
    assert made.plan([0, 0], 64, nothing) is None
    made.ended(10)
    assert made.plan([0, 0], 64, nothing) == Start((), None)


def test_what_a_request_begins_with_is_spared_if_that_is_possible() -> None:
    made = KeptPrefixes(cards(200), taps=False)
    kept(made, 1, [1, *SYSTEM])
    kept(made, 2, [2, *SYSTEM])
    assert made.plan([1, *SYSTEM, 5], 150, nothing) == Start((2,), Shared(1, 40, 40))
    # With it, there would be too little.
    assert made.plan([1, *SYSTEM, 5], 190, nothing) == Start((1, 2), None)


def test_what_can_never_fit_is_refused_with_the_way_out() -> None:
    made = KeptPrefixes(cards(0, 3000, 1000), taps=False)
    made.check(300, 148, 512)
    with pytest.raises(UserError) as refused:
        made.check(300, 149, 512)
    assert str(refused.value) == (
        "stage 3 has memory for the keys and values of 1000 tokens; a prompt of 300, up to 149 new "
        "ones and 512 for guesses are too many: ask for at most 148 new ones, or give the stage "
        "more (--kv-memory)"
    )
    with pytest.raises(UserError, match="prompt and answer together may have 448,"):
        made.check(500, 1, 512)
    with pytest.raises(UserError, match="that is too little for any request"):
        KeptPrefixes(cards(100), taps=False).check(5, 5, 512)
    KeptPrefixes(cards(0, 0), taps=False).check(10**6, 10**6, 512)


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_memory_is_never_given_twice(chance: random.Random, taps: bool) -> None:
    """Random requests against plain sums and comparisons."""
    room = 800
    made = KeptPrefixes(cards(900, room), taps, most=5)
    running: dict[int, tuple[list[int], int]] = {}
    held: dict[int, tuple[list[int], int]] = {}
    for request in range(60):
        prompt = [chance.randrange(2) for _ in range(3)] + SYSTEM[: chance.randrange(1, 40)]
        slots = chance.choice([64, 128, 320])
        announced = {each: chance.randrange(len(text) + 1) for each, (text, _) in running.items()}
        start = made.plan(prompt, slots, announced.__getitem__)
        used = sum(each for _, each in (*running.values(), *held.values()))
        if start is None:
            assert sum(each for _, each in running.values()) + slots > room
        else:
            for each in start.evict:
                used -= held.pop(each)[1]
            assert used + slots <= room
            if start.shared is not None:
                source, rows, tokens = start.shared
                text, most = (
                    held[source] if source in held else (running[source][0], announced[source])
                )
                assert text[:tokens] == prompt[:tokens]
                assert rows <= most
                assert rows == tokens - taps < len(prompt)
            made.began(request, prompt, slots, start)
            running[request] = prompt, slots
        for each in [each for each in running if chance.random() < 0.4]:
            text, slots = running.pop(each)
            if chance.random() < 0.3:
                made.ended(each)
                continue
            text = [*text, *(chance.randrange(2) for _ in range(5))]
            held[each] = text, len(text) - 1
            for closed in made.keep(each, text, len(text) - 1, len(text) - 1):
                del held[closed]
        assert set(made.kept) == held.keys()
        assert len(held) <= 5
        assert made.used == sum(each for _, each in (*running.values(), *held.values()))
