"""What every command shares: how it runs and how it ends.

Exit status: 0 done; 1 it could not be done (one sentence on stderr says why); 2 wrong usage;
130 Ctrl-C; 143 SIGTERM.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import typer
import uvloop

from gardener.cli.config import load
from gardener.cli.output import finish, ignore, note, result
from gardener.cli.start import end_at_once
from gardener.cli.streams import Unwritable
from gardener.errors import GardenerError

__all__ = ["Interrupted", "ignore", "note", "program", "result", "run", "settings"]

CLOSING = 3.0
"""Seconds that the event loop has to close once the command is done."""

T = TypeVar("T")


class Interrupted(BaseException):
    """The user has had enough. Not KeyboardInterrupt, of which typer makes an exit of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def program(app: typer.Typer) -> None:
    """Run a typer app; an expected failure is one sentence, without a traceback."""
    try:
        try:
            app()
        except GardenerError as error:
            note(f"error: {error}")
            sys.exit(1)
        finally:
            if not isinstance(sys.exception(), Interrupted):  # then nobody waits for a slow reader
                finish()
    except Interrupted as interrupt:
        note("interrupted")
        sys.exit(interrupt.status)
    except Unwritable as error:
        note(f"error: {error}")
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has left: that needs no words
        sys.exit(1)


def run(
    main: Coroutine[Any, Any, T],
    loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
) -> T:
    """Run on a `loop` of its own. The first Ctrl-C or SIGTERM ends it with all clean-up and raises
    Interrupted; the second one ends the process."""
    got: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def give_up() -> None:
        note("interrupted" if got else f"error: the event loop was not done {CLOSING:g} s after us")
        os._exit(128 + got[0] if got else 1)

    overdue = threading.Timer(CLOSING, give_up)
    overdue.daemon = True

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            if got:
                end_at_once(number)
            got.append(number)
            task.cancel()

        loop = asyncio.get_running_loop()
        for number in before:
            loop.add_signal_handler(number, stop, number)
        try:
            return await main
        finally:
            overdue.start()  # the loop waits for threads and sockets without a limit of its own

    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(guarded())
    except asyncio.CancelledError:
        raise Interrupted(*got or (signal.SIGINT,)) from None
    finally:
        overdue.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def settings(ctx: typer.Context, path: Path | None) -> Path | None:
    """Callback of `--config`: what the file says becomes the default of the other options."""
    if path is not None and not ctx.resilient_parsing:
        known = {
            option.removeprefix("--"): param.name
            for param in ctx.command.params
            if param.name and param.name != "config"
            for option in param.opts
            if option.startswith("--")
        }
        several = {param.name for param in ctx.command.params if getattr(param, "multiple", False)}
        found = load(path, ctx.command.name or "node", known)
        ctx.default_map = {
            name: [value] if name in several and isinstance(value, str) else value
            for name, value in found.items()
        }
    return path
