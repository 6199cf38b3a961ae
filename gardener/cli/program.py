"""What every command shares: how its options are read, how it runs and how it ends.

Exit status: 0 done; 1 it could not be done (one sentence on stderr says why); 2 wrong usage;
130 Ctrl-C; 143 SIGTERM.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import uvloop
from cyclopts import (
    App,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnusedCliTokensError,
    env_var_split,
)

import gardener
from gardener.cli import terminal
from gardener.cli.cluster_options import from_cluster
from gardener.cli.config import from_file
from gardener.cli.output import finish, ignore, note, result
from gardener.cli.start import end_at_once
from gardener.cli.streams import Unwritable
from gardener.errors import GardenerError, UserError
from gardener.runtime.wording import check_text

__all__ = [
    "CLUSTER_SAYS",
    "Interrupted",
    "Misuse",
    "application",
    "command_line",
    "flag",
    "ignore",
    "note",
    "program",
    "result",
    "run",
    "taking_interrupts",
    "text_of",
]

CLOSING = 3.0
"""Seconds that the event loop has to close once the command is done."""

CLUSTER_SAYS = (
    "; a cluster file says it for every machine (--cluster FILE, or cluster.toml in this folder)"
)

_takers: list[Callable[[], bool]] = []
"""Those who take Ctrl-C, the last one first; see `taking_interrupts`."""

T = TypeVar("T")


class Interrupted(BaseException):
    """The user has ended the command. It is no KeyboardInterrupt, since the parser of the command
    line turns that into an exit of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


class Misuse(UserError):
    """The command line asks for something that no command does."""


def application(name: str, purpose: str | None = None) -> App:
    """An executable to which commands can be added. `purpose` is for its help; without one, its
    only command says what it is for.

    Of an option that is given several times the last one counts. A flag has no twin that negates
    it. An empty variable of the environment sets nothing."""
    app = App(
        name=name,
        help=purpose,
        help_flags=("--help", "-h"),
        help_format="plaintext",
        version=f"{name} {gardener.__version__}",
        version_flags="--version",
        group_parameters=Group("Options"),
        default_parameter=Parameter(
            negative=(),
            allow_leading_hyphen=True,
            allow_repeating=True,
            env_var_split=_values,
            json_list=False,
        ),
        config=(from_file, from_cluster),
        result_action="sys_exit_zero",
    )
    app.register_install_completion_command(help="Let the shell complete commands and options.")
    return app


def flag(*names: str, help: str, env_var: str | None = None) -> Parameter:
    """An option without a value, which is off by default."""
    return Parameter(name=names, help=help, env_var=env_var, show_default=False)


def _values(hint: Any, text: str, *, delimiter: str | None = None) -> list[str]:
    """The values in a variable of the environment."""
    return env_var_split(hint, text, delimiter=delimiter) if text else []


def text_of(word: str, what: str) -> str:
    """A word of the command line that is a text, and no path. Raises UserError, which begins with
    `what`, if its bytes are none."""
    if any("\udc80" <= each <= "\udcff" for each in word):
        # Where no locale is set (LANG=C), Python leaves bytes beyond ASCII as they are.
        with contextlib.suppress(UnicodeError):
            word = os.fsencode(word).decode()
    check_text(word, what)
    return word


def command_line(name: str) -> str:
    """The command of this name that runs, as one may type it again."""
    return shlex.join((name, *sys.argv[1:]))


def program(app: App) -> None:
    """Do what the command line says; an expected failure is one sentence, without a traceback."""
    try:
        try:
            _obey(app, sys.argv[1:])
        except GardenerError as error:
            note(f"error: {error}")
            sys.exit(2 if isinstance(error, Misuse) else 1)
        finally:
            if not isinstance(sys.exception(), Interrupted):  # then nobody waits for a slow reader
                finish()
    except Interrupted as interrupt:
        note("interrupted")
        sys.exit(interrupt.status)
    except Unwritable as error:
        note(f"error: {error}")
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has left: nothing needs to be said
        sys.exit(1)


def _obey(app: App, words: Sequence[str]) -> None:
    """Carry out the command line. Raises Misuse for words that mean nothing."""
    if not words and app.default_command is None:
        app.help_print([])
        sys.exit(2)
    try:
        app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        command = " ".join((*app.name, *(error.command_chain or ())))
        raise Misuse(f"{_complaint(error)} ({command} --help lists the options)") from None


def _complaint(error: CycloptsError) -> str:
    """What is wrong with the command line, the environment, or the settings in a file."""
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected argument {error.unused_tokens[0]!r}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        given = name in (error.root_input_tokens or ())
        return f"{name} requires an argument{'' if given else ', and is not given at all'}"
    text = str(error).strip().rstrip(".")
    return text[:1].lower() + text[1:]


@contextlib.contextmanager
def taking_interrupts(take: Callable[[], bool]) -> Iterator[None]:
    """Meanwhile Ctrl-C calls `take`, which returns whether it has done something about it: if not,
    the command ends."""
    _takers.append(take)
    try:
        yield
    finally:
        _takers.remove(take)


def run(
    main: Coroutine[Any, Any, T],
    loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
    patience: int = 0,
) -> T:
    """Run on a `loop` of its own. The first Ctrl-C or SIGTERM ends it with all clean-up and raises
    Interrupted; the second one ends the process. `patience`: so many between these two cut the
    clean-up short, where it waits for something."""
    got: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def give_up() -> None:
        terminal.restore()
        note("interrupted" if got else f"error: the event loop was not done {CLOSING:g} s after us")
        os._exit(128 + got[0] if got else 1)

    overdue = threading.Timer(CLOSING, give_up)
    overdue.daemon = True

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            if number == signal.SIGINT and not got and _takers and _takers[-1]():
                return
            if len(got) > patience:
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
        raise Interrupted((got or [signal.SIGINT])[0]) from None
    finally:
        overdue.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
