"""The command `gardener`, which also writes what it sees: `python observed.py FILE eval ...`.

FILE gets a JSON object a line, at once, so that what a command knew is there if it has to be
killed:

    {"passes": [policy, tokens of the text, [[rows, microseconds], ... by stage]]}
    {"text": {...}}      a text that `gardener verify` has compared, see `reference.Comparison`
    {"heard": LINE}      a line that a stage has printed

Passes are those from which the holder learns what its stages cost: rows and times of the whole
pass, as each stage's verdict tells them; not those of prompts. Writing one takes some ten
microseconds of the event loop, where a segment takes one and a half milliseconds.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TextIO, TypeAlias
from unittest.mock import patch

from gardener.cli import main, verify
from gardener.decoding.costs import Costs
from gardener.decoding.events import Command, Event, Moment
from gardener.decoding.round import Round
from gardener.evaluation.reference import Comparison, compare
from gardener.protocol.messages import Timing
from gardener.rings.local import LocalRing

Handle: TypeAlias = Callable[[Round, Event, Moment], list[Command]]
Observe: TypeAlias = Callable[[Costs, int, float, Sequence[Timing]], None]
Hear: TypeAlias = Callable[[LocalRing, int, str], None]


class Observer:
    """Writes lines. `policy`: that of the request whose verdict came last."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.policy = ""

    def write(self, what: str, found: object) -> None:
        """A line."""
        self._stream.write(json.dumps({what: found}) + "\n")

    def install(self) -> None:
        """From now on, all that happens in this process is seen."""
        patch.object(Round, "handle", self.handling(Round.handle)).start()
        patch.object(Costs, "observe", self.observing(Costs.observe)).start()
        patch.object(LocalRing, "_line", self.hearing(LocalRing._line)).start()
        patch.object(verify, "compare", self.comparing(compare)).start()

    def handling(self, inner: Handle) -> Handle:
        """The same method of `Round`, watched."""

        def handle(round_: Round, event: Event, moment: Moment) -> list[Command]:
            self.policy = round_.speculation.policy.name
            return inner(round_, event, moment)

        return handle

    def observing(self, inner: Observe) -> Observe:
        """The same method of `Costs`, watched."""

        def observe(costs: Costs, rows: int, seconds: float, times: Sequence[Timing]) -> None:
            seen = [[each.rows, each.compute] for each in times]
            self.write("passes", [self.policy, costs.context, seen])
            inner(costs, rows, seconds, times)

        return observe

    def hearing(self, inner: Hear) -> Hear:
        """The same method of `LocalRing`, watched."""

        def hear(ring: LocalRing, stage: int, line: str) -> None:
            self.write("heard", line)
            inner(ring, stage, line)

        return hear

    def comparing(self, inner: Callable[..., Comparison]) -> Callable[..., Comparison]:
        """The same function, watched."""

        def compared(*texts: Any) -> Comparison:
            found = inner(*texts)
            self.write("text", asdict(found))
            return found

        return compared


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
    with open(sys.argv.pop(1), "a", buffering=1, encoding="utf-8") as file:
        Observer(file).install()
        number = run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(number)  # as `gardener` ends: it waits for no thread of a library
