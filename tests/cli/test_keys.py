"""Keys that are hit while a live view is on, in a terminal of our own."""

import asyncio
import io
import os
import pty
import re
import sys
import termios
from collections.abc import Callable, Coroutine, Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from gardener.cli import terminal
from gardener.cli.view.holder_frame import HELP, draw
from gardener.cli.view.keys import keys
from gardener.cli.view.live import Live
from gardener.watch.status import HolderStatus

DEADLINE = 20.0


class Screen(io.StringIO):
    """Standard error; a terminal that takes everything."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "80"), ("LINES", "24")):
        monkeypatch.setenv(name, value)
    return Screen()


def run(main: Coroutine[Any, Any, None], screen: Screen) -> None:
    """Run with both streams leading to the screen."""
    with redirect_stdout(screen), redirect_stderr(screen):
        asyncio.run(main)


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where keys are hit, for standard input to be a terminal."""
    end, other = pty.openpty()
    with open(other, encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield end
    os.close(end)


def local(number: int) -> int:
    return int(termios.tcgetattr(number)[3]) & (termios.ICANON | termios.ECHO | termios.ISIG)


class Counted:
    """Statuses that count how often they were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, now: float) -> HolderStatus:
        self.taken += 1
        return HolderStatus(f"status {self.taken}.")

    def live(self, **options: Any) -> Live[HolderStatus]:
        return Live(self.take, draw, HELP, **options)


async def until(screen: Screen, text: str, since: int = 0) -> int:
    """Wait until this is drawn, not before `since`; how much was drawn by then."""
    await true(lambda: text in screen.getvalue()[since:])
    return screen.getvalue().index(text, since) + len(text)


def newest(screen: Screen) -> int:
    """The number of the status that was drawn last."""
    return int(re.findall(r"status (\d+)\.", screen.getvalue())[-1])


async def true(condition: Callable[[], bool]) -> None:
    """Wait until it is."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what changes it is on other threads
            await asyncio.sleep(0.01)


def test_keys_in_what_a_terminal_sends() -> None:
    assert keys(b"qh p") == ["q", "h", " ", "p"]
    assert keys(b"\x1b[C\x1b[D\x1bOA\x1b[1;5Bq") == ["right", "left", "up", "down", "q"]
    assert keys(b"\x1b[3~\x1b[200~+\xc3\xa9-") == ["+", "-"]
    assert keys(b"\x1b") == []
    assert keys(b"") == []


def test_h_explains_and_p_holds(screen: Screen, keyboard: int) -> None:
    before = local(keyboard)

    async def main() -> None:
        async with Counted().live():
            at = await until(screen, "h help")
            assert local(keyboard) == before & termios.ISIG  # Ctrl-C stays what it is
            os.write(keyboard, b"h")
            at = await until(screen, "end the view", at)
            os.write(keyboard, b"hp")
            at = await until(screen, " paused, p goes on ", at)
            held = newest(screen)
            for _ in range(3):
                at = await until(screen, f"status {held}.", at)
            assert f"status {held + 1}." not in screen.getvalue()
            os.write(keyboard, b"p")
            await true(lambda: newest(screen) > held + 2)

    run(main(), screen)
    assert local(keyboard) == before
    assert "paused" not in screen.getvalue().rpartition("\x1b[H")[2]  # the last picture is as it is


@pytest.mark.parametrize("recorded", [False, True])
def test_q_ends_the_view_and_not_the_work(recorded: bool, screen: Screen, keyboard: int) -> None:
    """The terminal gets what was kept, and then everything at once."""
    counted = Counted()
    before = local(keyboard)

    async def main() -> None:
        async with counted.live(unseen=recorded) as live:
            sys.stdout.write("Once upon")
            await until(screen, "h help")
            assert "Once" not in screen.getvalue()
            os.write(keyboard, b"q")
            async with asyncio.timeout(DEADLINE):
                await live.closed.wait()
            assert local(keyboard) == before
            taken = counted.taken
            sys.stdout.write(" a time")
            assert screen.getvalue().endswith("\x1b[?25hOnce upon a time")
            if recorded:
                await true(lambda: counted.taken > taken + 1)
            else:
                assert counted.taken == taken

    run(main(), screen)
    assert screen.getvalue().endswith("\x1b[?25hOnce upon a time")


def test_a_prompt_that_is_typed_is_not_taken_for_keys(screen: Screen, keyboard: int) -> None:
    before = local(keyboard)

    async def main() -> None:
        async with Counted().live(hears=False):
            await until(screen, "status 2.")
            assert local(keyboard) == before

    run(main(), screen)
    assert "h help" not in screen.getvalue()


def test_in_the_background_the_terminal_is_left_alone(
    screen: Screen, keyboard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = local(keyboard)
    foreground = False
    monkeypatch.setattr(terminal, "in_foreground", lambda number: foreground)

    async def main() -> None:
        nonlocal foreground
        async with Counted().live() as live:
            await until(screen, "status 2.")
            assert local(keyboard) == before
            assert "h help" not in screen.getvalue()
            foreground = True
            await until(screen, "h help")
            foreground = False
            at = len(screen.getvalue())
            os.write(keyboard, b"q")
            await until(screen, "status ", at)  # nobody has read it
            assert not live.closed.is_set()

    run(main(), screen)


def test_without_a_screen_there_are_no_keys(screen: Screen, keyboard: int) -> None:
    before = local(keyboard)
    counted = Counted()

    async def main() -> None:
        async with counted.live(shown=False, unseen=True):
            await true(lambda: counted.taken > 1)
            assert local(keyboard) == before

    run(main(), screen)
    assert screen.getvalue() == ""
