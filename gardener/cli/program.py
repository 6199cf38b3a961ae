"""What every command shares: how it runs, how it ends, what it prints where.

Exit status: 0 done; 1 it could not be done (one sentence on stderr says why); 2 wrong usage;
130 Ctrl-C.
"""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import typer
import uvloop

from gardener.config import load
from gardener.errors import GardenerError

T = TypeVar("T")


def program(app: typer.Typer) -> None:
    """Run a typer app; an expected failure is one sentence, without a traceback."""
    try:
        app()
    except GardenerError as error:
        note(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        note("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has left
        sys.stderr.close()
        sys.exit(1)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run under uvloop. SIGTERM ends it as Ctrl-C does, with all clean-up."""

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await main

    try:
        return uvloop.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def note(text: str) -> None:
    """A line for the person at the terminal; stdout is for results."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def ignore(text: str) -> None:
    """Where a line may go and nobody wants it."""


def result(text: str) -> None:
    """Part of what the command was asked for."""
    sys.stdout.write(text)
    sys.stdout.flush()


def settings(ctx: typer.Context, path: Path | None) -> Path | None:
    """Callback of `--config`: what the file says becomes the default of the other options."""
    if path is not None and not ctx.resilient_parsing:
        known = [p.name for p in ctx.command.params if p.name and p.name != "config"]
        ctx.default_map = load(path, ctx.command.name or "node", known)
    return path
