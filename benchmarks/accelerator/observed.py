"""The command `gardener`, which also writes what it sees: `python observed.py FILE eval ...`.

FILE gets a JSON object a line, at once, so that what a command knew is there if it has to be
killed:

    {"passes": [policy, tokens of the text, [[rows, microseconds], ... by stage]]}
    {"text": {...}}      a text that `gardener verify` has compared, see `reference.Comparison`

Passes are those from which the holder learns what its stages cost: rows and times of the whole
pass, as each stage's verdict tells them; not those of prompts. Writing one takes some ten
microseconds of the event loop, where a segment takes one and a half milliseconds.
"""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gardener.cli import main, verify
from gardener.decoding.costs import Costs
from gardener.decoding.events import Command, Event, Moment
from gardener.decoding.round import Round
from gardener.evaluation.reference import Comparison, compare
from gardener.protocol.messages import Timing


class Observer:
    """Writes lines to a file."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("a", buffering=1, encoding="utf-8")
        self._policy = ""

    def write(self, what: str, found: object) -> None:
        """A line."""
        self._stream.write(json.dumps({what: found}) + "\n")

    def install(self) -> None:
        """From now on, all that happens in this process is seen."""
        handle, observe = Round.handle, Costs.observe

        def handled(round_: Round, event: Event, moment: Moment) -> list[Command]:
            self._policy = round_.speculation.policy.name
            return handle(round_, event, moment)

        def observed(costs: Costs, rows: int, seconds: float, times: Sequence[Timing]) -> None:
            self.write(
                "passes", [self._policy, costs.context, [[t.rows, t.compute] for t in times]]
            )
            observe(costs, rows, seconds, times)

        def compared(*what: Any, **how: Any) -> Comparison:
            found = compare(*what, **how)
            self.write("text", asdict(found))
            return found

        setattr(Round, "handle", handled)  # noqa: B010 - a method of a class with slots, typed
        setattr(Costs, "observe", observed)  # noqa: B010
        setattr(verify, "compare", compared)  # noqa: B010


def run() -> int:
    """The exit status of the command."""
    try:
        main.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    Observer(Path(sys.argv.pop(1))).install()
    number = run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(number)  # as `gardener` ends: it waits for no thread of a library
