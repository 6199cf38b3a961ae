"""`--record`: what the live view shows, written down."""

import os
import sys
from pathlib import Path

from gardener.cli.program import note
from gardener.runtime.wording import printable
from gardener.watch.record import Recorder, header


def recorder_at(path: Path, model: str) -> Recorder:
    """Writes to `path` from now on. `model` as it was given: folders are left out of its name.

    Raises UserError.
    """
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):  # no terminal
        size = None
    shown = None if size is None or not all(size) else (size.columns, size.lines)
    return Recorder(path, header(printable(Path(model).name), shown), note)
