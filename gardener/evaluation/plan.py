"""What an evaluation runs: prompts, policies, and rings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from gardener.errors import UserError
from gardener.evaluation.datasets import Conversation

Kind: TypeAlias = Literal["local", "peer", "simulate"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What every ring is asked, and under which policies. `levels`: numbers of requests at once
    under which the prompts are asked again; 1 is how they are all asked in any case."""

    conversations: tuple[Conversation, ...]
    policies: tuple[str, ...]
    new_tokens: int
    repeat: int
    raw: bool = False
    levels: tuple[int, ...] = (1,)

    @property
    def runs(self) -> int:
        """The number of answers of one ring to prompts asked alone, without those that warm it
        up."""
        return (
            sum(len(each.turns) for each in self.conversations) * len(self.policies) * self.repeat
        )


@dataclass(frozen=True, slots=True)
class Place:
    """A ring to measure. `stages` is unknown for a ring that others started. `draft`: the drafters,
    if rings with several of them are compared."""

    kind: Kind
    stages: int | None = None
    peer: str | None = None
    profile: str | None = None
    draft: str | None = None

    def __str__(self) -> str:
        return self._ring if self.draft is None else f"{self._ring}, draft {self.draft}"

    @property
    def _ring(self) -> str:
        match self.kind:
            case "local":
                return f"local {self.stages}"
            case "simulate":
                return f"simulated {self.stages} {Path(self.profile or '').stem}"
            case "peer":
                return f"ring at {self.peer}"


def places(
    local: str | None, peer: str | None, simulate: str | None, profile: str
) -> tuple[Place, ...]:
    """The rings that the options name, two stages here if they name none. Raises UserError."""
    given = [name for name, value in _given(local, peer, simulate) if value is not None]
    if len(given) > 1:
        raise UserError(f"{given[0]} and {given[1]} name two kinds of ring: give one of them")
    if peer is not None:
        return (Place("peer", peer=peer),)
    if simulate is not None:
        profiles = _parts(profile, "--profile")
        stages = numbers(simulate, "--simulate", "stages")
        return tuple(Place("simulate", n, profile=name) for name in profiles for n in stages)
    return tuple(Place("local", n) for n in numbers(local or "2", "--local", "stages"))


def drafted(rings: Iterable[Place], drafts: Sequence[str]) -> tuple[Place, ...]:
    """Each ring with each of these drafters, one after the other."""
    if len(drafts) == 1:
        return tuple(rings)
    return tuple(replace(ring, draft=draft) for ring in rings for draft in drafts)


def _given(*values: str | None) -> Iterable[tuple[str, str | None]]:
    return zip(("--local", "--peer", "--simulate"), values, strict=True)


def _parts(text: str, option: str) -> tuple[str, ...]:
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise UserError(f"{option} is empty: give one value, or several with commas between")
    return parts


def numbers(text: str, option: str, of: str) -> tuple[int, ...]:
    """The numbers of something, from 1, that the option has; each once. Raises UserError."""
    parts = _parts(text, option)
    for part in parts:
        if not part.isdecimal() or int(part) < 1:
            raise UserError(
                f"{option} takes a number of {of} from 1, or several with commas between, "
                f"not {part!r}"
            )
    return tuple(dict.fromkeys(int(part) for part in parts))
