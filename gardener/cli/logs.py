"""`--log-format`: how lines on standard error look, those of `note` and those that are logged."""

import logging
from typing import Literal

from gardener.cli import output
from gardener.runtime.logs import AboutRequest, FewLines, TextFormatter, json_formatter, noted


def begin_logs(form: Literal["text", "json"], **fields: object) -> None:
    """From now on, lines are written in this form. `fields` stand in each JSON line.

    What the rooms of Gardener log is written from level INFO on, what libraries log from WARNING
    on. Raises UserError if a package for it is missing.
    """
    formatter = TextFormatter() if form == "text" else json_formatter(fields)
    if form == "json":
        output.shape(lambda text: formatter.format(noted(text)))
    handler = _Lines()
    handler.setFormatter(formatter)
    handler.addFilter(AboutRequest())
    handler.addFilter(FewLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("gardener").setLevel(logging.INFO)


class _Lines(logging.Handler):
    """Writes records as lines that nobody waits for."""

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises, as the event loop would have to bear it."""
        try:
            output.log(self.format(record))
        except Exception:
            self.handleError(record)
