"""All that the doctor has seen of a cluster, at one moment and from one machine."""

from dataclasses import dataclass
from enum import StrEnum

from gardener.cluster.doctor.own_keys import WITHOUT, OwnKeys
from gardener.cluster.places import Cluster, HolderPlace, NodePlace, StagePlace
from gardener.net.address import Address
from gardener.net.look import Unseen, View
from gardener.protocol.messages import Card
from gardener.protocol.sight import Sight


class Role(StrEnum):
    """What is to be found at an address."""

    HOLDER = "holder"
    STAGE = "stage"
    SPARE = "spare"


@dataclass(frozen=True)
class Target:
    """Who should be at an address. `number`: 0 where nobody has said which stage it is. `place`:
    what the cluster file says of it."""

    role: Role
    number: int
    address: Address
    place: HolderPlace | NodePlace | None = None

    @property
    def certificate(self) -> str:
        """The name in its certificate."""
        return "holder" if self.role is Role.HOLDER else f"{self.role}-{self.number}"

    @property
    def table(self) -> str:
        """The table of the cluster file that is about it."""
        return "[holder]" if self.role is Role.HOLDER else f"[{self.role}.{self.number}]"

    def __str__(self) -> str:
        if self.role is Role.HOLDER:
            return f"the holder at {self.address}"
        return f"{self.role} {self.number or '?'} at {self.address}"


@dataclass(frozen=True)
class Examined:
    """What is at an address.

    here        it is one of this machine's
    spare       which spare it is, that is this stage now; 0: it is the stage itself
    relieved_by which spare is this stage now, in its place; 0: none is
    """

    target: Target
    seen: View | Unseen
    here: bool = False
    spare: int = 0
    relieved_by: int = 0

    @property
    def view(self) -> View | None:
        """What is to be seen of it; None: nothing."""
        return self.seen if isinstance(self.seen, View) else None

    @property
    def unseen(self) -> Unseen | None:
        """Why nothing is to be seen of it."""
        return self.seen if isinstance(self.seen, Unseen) else None

    @property
    def card(self) -> Card | None:
        """Its card, whatever it shows."""
        return self.view.looked.card if self.view else None

    @property
    def sight(self) -> Sight | None:
        """What it does."""
        return self.view.looked.sight if self.view else None

    @property
    def ready(self) -> Card | None:
        """Its card, if it holds layers already."""
        return self.card if self.card is not None and self.card.layers else None

    @property
    def number(self) -> int:
        """Which stage it is, as it says itself or else as was expected; or which spare."""
        if self.card is None or self.target.role is Role.SPARE:
            return self.target.number
        return self.card.stage

    @property
    def stage(self) -> StagePlace | None:
        """What the file says of this stage."""
        return self.target.place if isinstance(self.target.place, StagePlace) else None

    @property
    def machine(self) -> str:
        """Where a command for it is to be run; empty: here."""
        return "" if self.here else self.target.address.host

    def __str__(self) -> str:
        if self.target.role is Role.STAGE and not self.target.number and self.number:
            return f"stage {self.number} at {self.target.address}"
        return f"{self.target} (spare {self.spare})" if self.spare else str(self.target)


@dataclass(frozen=True)
class Seen:
    """What was seen.

    stages      in the order of the ring, as far as that is known; a spare that is a stage now is
                among them
    spares      those that are no stage now
    relieved    the stages in whose place a spare is now
    holder      where the last stage dials it; None: nobody says where
    version     of the Gardener on this machine
    cluster     the file; None: there were only addresses
    file        how a command names the file, empty where it is found by itself
    own         the keys of this machine
    named       the model, as --model takes it; empty: nobody has said
    model       fingerprint of the holder's model, if this is its machine; empty: not known
    made_for    tokens of a text that this model was made for; None: not known
    unread      why it is not known
    taken       why the holder could not listen, if this is its machine
    """

    stages: tuple[Examined, ...]
    version: str
    spares: tuple[Examined, ...] = ()
    holder: Examined | None = None
    cluster: Cluster | None = None
    file: str = ""
    own: OwnKeys = WITHOUT
    named: str = ""
    model: str = ""
    made_for: int | None = None
    unread: str = ""
    taken: str = ""
    relieved: tuple[Examined, ...] = ()

    @property
    def nodes(self) -> tuple[Examined, ...]:
        """All but the holder."""
        return (*self.stages, *self.relieved, *self.spares)

    @property
    def everybody(self) -> tuple[Examined, ...]:
        """Nodes and holder."""
        return (*self.nodes, *([self.holder] if self.holder else []))

    @property
    def secured(self) -> bool:
        """Whether links are in TLS."""
        return self.own.folder is not None

    @property
    def context(self) -> int | None:
        """Most tokens that a text should have; None: not known."""
        asked = self.cluster.context if self.cluster else None
        return asked or self.made_for

    def before(self, stage: Examined) -> Examined | None:
        """The stage that dials it, if that was looked at."""
        at = self.stages.index(stage)
        return self.stages[at - 1] if at else None

    def after(self, stage: Examined) -> Examined | None:
        """The stage that it dials, likewise."""
        at = self.stages.index(stage) + 1
        return self.stages[at] if at < len(self.stages) else None
