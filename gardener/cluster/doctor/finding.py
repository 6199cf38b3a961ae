"""One thing that the doctor has found."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gardener.runtime.wording import printable


class Severity(StrEnum):
    """How bad it is. All is well if nothing is WRONG and nothing is to be awaited."""

    WRONG = "wrong"
    WAIT = "wait"
    WARNING = "warning"
    UNSEEN = "not seen"


class Subject(StrEnum):
    """What it is about, in the order in which things are to be mended: what comes first may be the
    reason for what comes later."""

    KEYS = "keys"
    NAME = "name"
    REACH = "reach"
    STRANGER = "stranger"
    VERSION = "version"
    CLOCK = "clock"
    PHASE = "phase"
    PLACE = "place"
    MODEL = "model"
    COVERAGE = "coverage"
    NEIGHBOUR = "neighbour"
    HOLDER = "holder"
    MEMORY = "memory"


@dataclass(frozen=True)
class Finding:
    """`sentence`: what is wrong at `where`, and why. `command`: what mends it, to be run `on` that
    machine; empty: this one. Parts of it may be what a peer has said."""

    subject: Subject
    severity: Severity
    where: str
    sentence: str
    command: str = ""
    on: str = ""

    def __post_init__(self) -> None:
        for name in ("where", "sentence", "command", "on"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    @property
    def rank(self) -> tuple[int, int]:
        """What is to be mended first comes first."""
        severities, subjects = list(Severity), list(Subject)
        return severities.index(self.severity), subjects.index(self.subject)


def well(findings: Sequence[Finding]) -> bool:
    """Whether nothing has to be mended or waited for."""
    return not any(each.severity in (Severity.WRONG, Severity.WAIT) for each in findings)
