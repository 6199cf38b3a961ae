"""Lines of a log: for people, or as JSON objects, each with the id of the request it is about."""

import logging
import math
from collections.abc import Mapping
from contextvars import ContextVar

from gardener.errors import UserError
from gardener.runtime import clock
from gardener.runtime.wording import Say, harmless

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is being answered."""

WITHOUT = (
    "--log-format json needs a package that is not installed: pip install 'gardener-node[metrics]'"
)

ERROR = "error: "
"""How a line begins that says what went wrong."""

SAID_A_SECOND = 20
"""Lines a second that are said, of which peers can bring about many."""

LOGGED_A_SECOND = 100
"""Lines a second in a log, where each request has one."""


class AboutRequest(logging.Filter):
    """Marks records with the id of the request, if there is one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drops none."""
        if mark := request_id.get():
            record.request_id = mark
        return True


class Throttle:
    """So many lines a second: what strangers do may be told, but not fill a disk."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun = -math.inf  # of the second that is counted, in seconds of `clock`
        self._told = self._left_out = 0

    def take(self) -> str | None:
        """One more line: None if it is to be left out, or else what is to be added to it, which
        says how many were before it."""
        now = clock.now()
        if not 0 <= now - self._begun < 1:
            self._begun, self._told = now, 0
        if self._told >= self._most:
            self._left_out += 1
            return None
        self._told += 1
        left_out, self._left_out = self._left_out, 0
        if not left_out:
            return ""
        return f" ({left_out} {'line' if left_out == 1 else 'lines'} before this left out)"


class FewLines(logging.Filter):
    """Drops what is more than so many lines a second. Errors are counted apart, so that nothing
    that anybody can bring about crowds them out."""

    def __init__(self, most: int = LOGGED_A_SECOND) -> None:
        super().__init__()
        self._lines, self._errors = Throttle(most), Throttle(most)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        throttle = self._errors if record.levelno >= logging.ERROR else self._lines
        more = throttle.take()
        if more:
            record.msg, record.args = record.getMessage() + more, None
        return more is not None


def few(say: Say, most: int = SAID_A_SECOND) -> Say:
    """The same for lines that are said."""
    lines, errors = Throttle(most), Throttle(most)

    def saying(line: str) -> None:
        more = (errors if line.startswith(ERROR) else lines).take()
        if more is not None:
            say(line + more)

    return saying


class TextFormatter(logging.Formatter):
    """The message, then the request; a traceback on lines of its own. What could steer a terminal
    is made harmless: parts may come from anybody."""

    def format(self, record: logging.LogRecord) -> str:
        """As one text, mostly of one line."""
        mark = getattr(record, "request_id", "")
        text = f"{record.getMessage()} [{mark}]" if mark else record.getMessage()
        if record.levelno >= logging.ERROR and not text.startswith(ERROR):
            text = ERROR + text
        text = harmless(text)
        if record.exc_info:
            text = f"{text}\n{harmless(self.formatException(record.exc_info), keep=chr(10))}"
        return text


def json_formatter(fields: Mapping[str, object]) -> logging.Formatter:
    """One JSON object a line: timestamp, level, message, these fields, and what is said besides
    (`extra`). Raises UserError if the package for it is missing."""
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ModuleNotFoundError as error:
        raise UserError(WITHOUT) from error

    return JsonFormatter(
        ["timestamp", "levelname", "message"],
        rename_fields={"levelname": "level"},
        static_fields=dict(fields),
        timestamp=True,
        json_ensure_ascii=True,
    )


def noted(text: str) -> logging.LogRecord:
    """A line for people as a record."""
    level = logging.ERROR if text.startswith(ERROR) else logging.INFO
    return logging.LogRecord("gardener", level, "", 0, text.removeprefix(ERROR), None, None)
