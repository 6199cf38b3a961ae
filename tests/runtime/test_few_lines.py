"""How many lines a second are written, whatever peers do."""

import logging

from gardener.runtime import clock
from gardener.runtime.logs import FewLines, few


class Second:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def record(text: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("gardener", level, "", 0, text, None, None)


def test_more_lines_than_there_may_be_are_counted_instead() -> None:
    second, said = Second(), list[str]()
    with clock.using(second):
        say = few(said.append, 3)
        for number in range(5):
            say(f"stranger {number}")
        assert said == ["stranger 0", "stranger 1", "stranger 2"]
        second.now += 0.9
        say("stranger 5")
        say("error: the ring broke")  # is never crowded out by what is no error
        assert said[3:] == ["error: the ring broke"]
        second.now += 0.2
        say("stranger 6")
        say("stranger 7")
    assert said[4:] == ["stranger 6 (3 lines before this left out)", "stranger 7"]


def test_a_clock_that_starts_again_stops_no_log() -> None:
    """A simulated ring has a clock of its own."""
    second, said = Second(), list[str]()
    with clock.using(second):
        say = few(said.append, 1)
        say("one")
        second.now = 0.0
        say("two")
    assert said == ["one", "two"]


def test_a_log_drops_lines_and_says_how_many() -> None:
    second, lines = Second(), FewLines(2)
    with clock.using(second):
        assert [lines.filter(record("GET / %s")) for _ in range(4)] == [True, True, False, False]
        assert lines.filter(record("it broke", logging.ERROR))
        second.now += 1.0
        last = record("GET /health 503")
        assert lines.filter(last)
    assert last.getMessage() == "GET /health 503 (2 lines before this left out)"
