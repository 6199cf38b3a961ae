"""Caches at addresses that stay: who gets which, and how much memory they hold."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from gardener.model.device.seats import LEAST, WASTE, Seats, dump, size_for
from gardener.model.device.sizes import CHUNK, chunks, cut_of, filled
from gardener.model.kv_cache import KVCache


class Place:
    """Stands for a cache."""

    def __init__(self, slots: int) -> None:
        self.slots, self.emptied = slots, 0

    def empty(self) -> None:
        self.emptied += 1


class Made:
    """Seats, with all that were made and are not gone."""

    def __init__(self) -> None:
        self.there: list[Place] = []
        self.seats = Seats(self._make, self._gone)

    def _make(self, slots: int) -> KVCache:
        self.there.append(Place(slots))
        return cast(KVCache, self.there[-1])

    def _gone(self, cache: Any) -> None:
        self.there.remove(cache)

    @property
    def slots(self) -> int:
        return sum(place.slots for place in self.there)


def test_the_next_request_takes_the_seat_of_the_last_one_emptied() -> None:
    made = Made()
    first: Any = made.seats.take(900)
    made.seats.give(first)
    again: Any = made.seats.take(1000)
    assert again is first
    assert again.emptied == 1
    assert made.seats.take(1000) is not first


def test_a_seat_that_is_too_small_or_much_too_large_goes_when_another_is_made() -> None:
    made = Made()
    for slots in (600, 20_000, 600):
        seat = made.seats.take(slots)
        assert [slots <= dump(each) for each in (seat,)] == [True]
        made.seats.give(seat)
    assert len(made.there) == 1


def test_what_is_no_seat_is_not_taken_back() -> None:
    made = Made()
    other = cast(KVCache, Place(1000))
    made.seats.give(other)
    assert made.seats.take(900) is not other
    seat = made.seats.take(900)
    made.seats.give(seat)
    made.seats.give(seat)
    assert made.seats.take(900) is seat
    assert made.seats.take(900) is not seat


@given(st.lists(st.one_of(st.integers(1, 9000), st.integers(-5, -1)), max_size=40))
def test_seats_hold_no_more_than_was_ever_asked_for(steps: list[int]) -> None:
    """Times what may be wasted. A negative step gives one back."""
    made, taken, asked, most, count = Made(), [], [], 0, 0
    for step in steps:
        if step > 0:
            taken.append(made.seats.take(step))
            asked.append(step)
            assert dump(taken[-1]) >= step
        elif taken:
            place = step % len(taken)
            made.seats.give(taken.pop(place))
            asked.pop(place)
        most, count = max(most, sum(asked)), max(count, len(asked))
        assert made.slots <= WASTE * most + (LEAST + 1) * count


@given(st.integers(1, 10**6))
def test_sizes_of_seats_are_few_and_not_far_from_what_is_asked(slots: int) -> None:
    size = size_for(slots)
    assert size >= slots
    assert size % CHUNK == 0
    assert size <= max(2 * LEAST, 1.5 * slots)


def test_sizes_of_passes() -> None:
    assert [filled(rows, (16, 32, 64)) for rows in (1, 16, 17, 64)] == [16, 16, 32, 64]
    assert [cut_of(position) for position in (0, 63, 64, 95, 96, 1000)] == [0, 0, 32, 32, 64, 960]
    assert [chunks(cut, 8 * CHUNK) for cut in (0, 1, 256, 257, 513, 1100)] == [0, 1, 1, 2, 4, 8]
    assert chunks(5 * CHUNK, 6 * CHUNK + 1) == 6, "there are no more than the cache has"
