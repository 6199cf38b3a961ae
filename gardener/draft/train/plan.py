"""What a training run is to be: all its settings, in one place."""

from dataclasses import asdict, dataclass
from typing import Any

from gardener.errors import UserError


@dataclass(frozen=True)
class Plan:
    """Settings of a run.

    hours        how long to work, in all sessions together, the report included; the learning rate
                 follows this clock
    taps         which hidden states the head gets, see `Kept.features`; the number of layers is
                 the last hidden state
    vocab        tokens that the head can guess
    inner        width of its MLP; 0: as in the model
    induction    groups of induction heads, see `DraftHead`
    steps        passes of the training-time test; decay: how much less each further one counts
    share        of the rows that take part in the passes after the first
    passes       how often a token is trained on, in the mean
    chunk        tokens in a chunk of dialogues; keep: chunks that stay on disk
    lanes, room  most dialogues written at a time, and most tokens in one
    rounds       most user turns in a dialogue
    batch        most tokens in a step; rate: the highest learning rate
    """

    hours: float = 2.0
    taps: tuple[int, ...] = ()
    vocab: int = 12288
    inner: int = 0
    induction: int = 1
    steps: int = 8
    decay: float = 0.9
    share: float = 0.25
    passes: float = 4.0
    chunk: int = 60_000
    keep: int = 64
    lanes: int = 256
    room: int = 256
    rounds: int = 1
    batch: int = 2048
    rate: float = 5e-3
    seed: int = 1

    def __post_init__(self) -> None:
        least = {"steps": 5, "vocab": 16, "lanes": 1, "room": 64, "batch": 256, "keep": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise UserError(f"{name} is {getattr(self, name)}, but must be {value} or more")
        if not 0 < self.share <= 1:
            raise UserError(f"share is {self.share:g}, but must be above 0 and at most 1")
        if self.hours <= 0 or self.passes < 1 or not 0 < self.decay <= 1 or self.rate <= 0:
            raise UserError(
                f"hours ({self.hours:g}) and rate ({self.rate:g}) must be above 0, passes "
                f"({self.passes:g}) at least 1, and decay ({self.decay:g}) at most 1"
            )

    @property
    def lanes_now(self) -> int:
        """Dialogues written at a time: fewer in a run of less than half an hour, so that they come
        to an end in it."""
        return min(self.lanes, max(16, round(self.lanes * self.hours / 0.5)))

    @property
    def batch_now(self) -> int:
        """Tokens in a step: fewer in a run of less than a quarter of an hour, so that it has
        several steps, and the end is never far."""
        return min(self.batch, max(256, round(self.batch * self.hours / 0.25)))

    def facts(self) -> dict[str, Any]:
        """All settings by name, for the report."""
        return asdict(self)
