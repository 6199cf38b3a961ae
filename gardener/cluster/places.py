"""What a cluster is made of: its model, its drafters, and a place for each machine."""

from dataclasses import dataclass
from pathlib import Path

from gardener.errors import UserError
from gardener.net.address import Address


@dataclass(frozen=True)
class DraftPart:
    """What guesses, at the holder; as the options --draft, --head, --draft-model, --draft-dtype,
    --draft-device and --graphs. None: as these are without a file."""

    kinds: str | None = None
    head: str | None = None
    model: str | None = None
    dtype: str | None = None
    device: str | None = None
    graphs: bool | None = None


@dataclass(frozen=True)
class Place:
    """Where a process is: others dial it at host:port. `listen`: where it listens there, if that is
    not the same, as 0.0.0.0:7000."""

    host: str
    port: int
    listen: str | None = None

    @property
    def address(self) -> Address:
        """Where it is dialled."""
        return Address(self.host, self.port)

    @property
    def listens_at(self) -> str:
        """Where it listens, as --listen takes it."""
        return self.listen or str(self.address)


@dataclass(frozen=True)
class HolderPlace(Place):
    """Where the holder is; the last stage dials it."""


@dataclass(frozen=True)
class NodePlace(Place):
    """A node; `number` from 1. `model`: where it is on that machine. `threads` None: all cores;
    `kv_memory`: GiB, None: half of what is free. `graphs` None: as --graphs is without a file."""

    number: int = 1
    model: str = ""
    device: str = "cpu"
    threads: int | None = None
    kv_memory: float | None = None
    graphs: bool | None = None


@dataclass(frozen=True)
class SparePlace(NodePlace):
    """An idle node that can take the place of a stage."""

    def __str__(self) -> str:
        return f"spare {self.number} at {self.address}"


@dataclass(frozen=True)
class StagePlace(NodePlace):
    """A stage. `layers`: A-B, both included; None: shared out evenly."""

    layers: str | None = None
    dtype: str = "float32"
    quant: str = "none"
    quant_head: str = "auto"

    def __str__(self) -> str:
        return f"stage {self.number} at {self.address}"


@dataclass(frozen=True)
class Cluster:
    """One ring, as `cluster.toml` describes it.

    path      of the file, absolute
    name      for people; may be empty
    model     as --model takes it: that of the holder; each place has its own
    keys      the folder with certificates, on each machine; None: none are named
    insecure  whether links may do without
    stages    in order, at least one
    spares    in order
    context   most tokens of prompt and answer together; None: what the model was made for
    """

    path: Path
    name: str
    model: str
    revision: str | None
    draft: DraftPart
    keys: Path | None
    insecure: bool
    holder: HolderPlace
    stages: tuple[StagePlace, ...]
    spares: tuple[SparePlace, ...] = ()
    context: int | None = None

    def __str__(self) -> str:
        return f"cluster {self.name} ({self.path})" if self.name else f"cluster {self.path}"

    def stage(self, number: int) -> StagePlace:
        """Raises UserError for a number that no stage has."""
        if not 1 <= number <= len(self.stages):
            raise self._nobody("stage", number, len(self.stages))
        return self.stages[number - 1]

    def spare(self, number: int) -> SparePlace:
        """Raises UserError for a number that no spare has."""
        if not 1 <= number <= len(self.spares):
            raise self._nobody("spare", number, len(self.spares))
        return self.spares[number - 1]

    def after(self, stage: int) -> Place:
        """Whom this stage dials: the next one, or the holder. 0 is the holder. Raises UserError."""
        return self.holder if stage == len(self.stages) else self.stage(stage + 1)

    def _nobody(self, kind: str, number: int, count: int) -> UserError:
        there = f"{kind}s 1 to {count}" if count > 1 else f"only {kind} 1" if count else "none"
        return UserError(
            f"there is no {kind} {number} in {self.path}, which has {there}: correct the number, "
            f"or add [{kind}.{number}] to the file"
        )
