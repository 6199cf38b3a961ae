"""The clock: the machine's, or a virtual one for a while."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gardener.runtime import clock


def test_it_is_the_monotonic_clock() -> None:
    before = time.monotonic()
    assert before <= clock.now() <= time.monotonic()


def test_another_clock_is_used_for_a_while() -> None:
    with clock.using(lambda: 3.0):
        assert clock.now() == 3.0
        with clock.using(lambda: 4.0):
            assert clock.now() == 4.0
        assert clock.now() == 3.0
    assert clock.now() != 3.0


def test_an_error_gives_the_clock_back() -> None:
    with pytest.raises(ZeroDivisionError), clock.using(lambda: 3.0):
        _ = 1 // 0
    assert clock.now() != 3.0


def test_a_thread_may_have_a_clock_of_its_own() -> None:
    with ThreadPoolExecutor(1) as other, clock.using_here(lambda: 3.0):
        assert clock.now() == 3.0
        assert other.submit(clock.now).result() != 3.0
        with clock.using(lambda: 4.0):
            assert clock.now() == 3.0
            assert other.submit(clock.now).result() == 4.0
    assert clock.now() != 3.0
