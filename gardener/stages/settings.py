"""What a user says about one stage. Imports no torch: a node listens before it does."""

from dataclasses import dataclass
from pathlib import Path

from gardener.errors import UserError
from gardener.model.quants import AUTO
from gardener.net.spares import SPARE_AFTER

MOST_KV_MEMORY = 2**20
"""GiB for keys and values, so that the bytes are a number that a card can name."""


@dataclass(frozen=True)
class NodeSettings:
    """Where one stage stands and what it holds. Raises UserError for memory that cannot be.

    stage      counts from 1; 0: it is a spare, whose place others will name
    spare      its number, of a spare
    kv_memory  GiB that keys and values may take; None: half of what is free once it is loaded
    context    most tokens of one request, prompt and answer together; None: what memory takes
    beside     stages on this machine, this one among them, that share all that
    keys       folder of the keys with which links are secured
    insecure   without keys, links may leave this machine
    spares     host:port,... of spares, one of which steps in the place of the stage after this
               one, if that stays away for `spare_after` seconds
    command    the command line that started it, for who has to start it again; "": not known
    graphs     on CUDA, record the kernels of a pass once and start them together from then on
    """

    stage: int
    peer: str
    listen: str
    model: str
    revision: str | None
    stages: int | None
    layers: str | None
    dtype: str
    device: str
    threads: int
    quant: str
    patience: float
    quant_head: str = AUTO
    kv_memory: float | None = None
    context: int | None = None
    beside: int = 1
    keys: Path | None = None
    insecure: bool = False
    spares: str = ""
    spare_after: float = SPARE_AFTER
    spare: int | None = None
    command: str = ""
    graphs: bool = True

    @property
    def who(self) -> str:
        """`stage 2`, or `spare 1`."""
        return f"stage {self.stage}" if self.stage else f"spare {self.spare}"

    def __post_init__(self) -> None:
        if self.kv_memory is not None and not 0 < self.kv_memory <= MOST_KV_MEMORY:
            raise UserError(
                f"kv_memory is {self.kv_memory:g} GiB, and must be more than 0 and at most "
                f"{MOST_KV_MEMORY}: leave it out for half of what is free"
            )
