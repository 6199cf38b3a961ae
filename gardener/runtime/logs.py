"""Lines of a log: for people, or as JSON objects, each with the id of the request it is about."""

import logging
from collections.abc import Mapping
from contextvars import ContextVar

from gardener.errors import UserError
from gardener.runtime.wording import harmless

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is being answered."""

WITHOUT = (
    "--log-format json needs a package that is not installed: pip install 'gardener-node[metrics]'"
)

ERROR = "error: "
"""How a line begins that says what went wrong."""


class AboutRequest(logging.Filter):
    """Marks records with the id of the request, if there is one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drops none."""
        if mark := request_id.get():
            record.request_id = mark
        return True


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
