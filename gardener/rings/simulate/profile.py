"""The machines and the network that a simulation stands for: TOML files, checked strictly.

    base = "gpu"                         # optional: the profile of which this changes something
    seed = 1                             # of the jitter
    model = [[1, 40.0], [64, 42.0]]      # rows of a pass, milliseconds of ALL layers and the head
    overhead_ms = 0.2                    # of a pass at one stage, whatever it holds
    row_bytes = 8192                     # of a hidden state
    link = {delay_ms = 0.1, bandwidth_mbit = 1000.0, jitter_ms = 0.02}
    drafter = [[1, 4.0], [64, 4.5]]      # rows of a pass of the drafter's network, milliseconds
    holder = {event_ms = 0.4, node_ms = 0.01}   # processor time of the holder's event loop
    slow = {2 = 2.0}                     # stage 2, if there is one, takes twice as long
    crowded = true                       # stages and drafter are on one machine and share its cores

A ring of N stages shares the model evenly: each takes `model / N + overhead_ms`, times what `slow`
says of it. Between the points of a curve time is linear, and beyond the last two it goes on as
between these. A pass takes what its number of rows takes, whatever tokens they are: that of a
mixture of experts has to be measured with rows that bring experts of their own. All connections are
alike. A profile is named by its file, or by its name if it comes with the package. In a crowded
ring a pass takes no longer when something else computes, which only `plain`, `serial` and
`alternating` avoid: the other policies look faster than they are.

A ring of machines that differ has a curve for each stage, in place of `slow`, and a link into each
stage and one back to the holder, in place of `link`:

    stages = [[[1, 20.0], [64, 21.0]], [[1, 9.0]]]   # milliseconds of a pass, as `model`
    links = [{delay_ms = 0.1, bandwidth_mbit = 1000.0}, ...]   # one more than stages
"""

import tomllib
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct

from gardener.decoding.curves import Curve
from gardener.errors import UserError, reason
from gardener.rings.simulate.network import LinkConditions
from gardener.rings.simulate.processor import Processor

Rows: TypeAlias = Annotated[int, Meta(ge=1, le=2**20)]
Milliseconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e7)]
Factor: TypeAlias = Annotated[float, Meta(gt=0, le=1e3)]
Points: TypeAlias = Annotated[tuple[tuple[Rows, Milliseconds], ...], Meta(min_length=1)]


class LinkTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """Every link of the ring, in each direction. The jitter is added to the delay: any time from 0
    to this one is equally likely."""

    delay_ms: Milliseconds
    bandwidth_mbit: Annotated[float, Meta(gt=0, le=1e9)]
    jitter_ms: Milliseconds = 0.0


class HolderTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """The processor time of the holder's event loop for each event that it handles (a segment sent,
    a verdict, an answer of a drafter), and for each node in it."""

    event_ms: Milliseconds
    node_ms: Milliseconds


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """A profile as its file describes it; the fields are explained above."""

    model: Points
    row_bytes: Annotated[int, Meta(ge=1, le=2**24)]
    link: LinkTerms
    drafter: Points
    overhead_ms: Milliseconds = 0.0
    holder: HolderTerms = HolderTerms(0.0, 0.0)
    slow: dict[Annotated[int, Meta(ge=1)], Factor] = {}
    seed: Annotated[int, Meta(ge=0)] = 0
    crowded: bool = False
    name: str = ""  # for people; left out, that of the file
    stages: tuple[Points, ...] = ()
    links: tuple[LinkTerms, ...] = ()

    def check(self, stages: int) -> None:
        """Raise UserError unless this is a profile of a ring of so many stages."""
        for what, told in (("stages", len(self.stages)), ("links", max(len(self.links) - 1, 0))):
            if told not in (0, stages):
                raise UserError(
                    f"profile {self.name}: `{what}` is for a ring of {told} stages, and this one "
                    f"has {stages}: give --simulate {told}"
                )

    def stage(self, number: int, stages: int) -> Curve:
        """Seconds of a forward pass at one of `stages` stages, which are numbered from 1."""
        if self.stages:
            own = ((rows, ms + self.overhead_ms) for rows, ms in self.stages[number - 1])
            return Curve(tuple(own)).scaled(1e-3)
        factor = self.slow.get(number, 1.0) * 1e-3
        return Curve(
            tuple((rows, (ms / stages + self.overhead_ms) * factor) for rows, ms in self.model)
        )

    def draft(self) -> Curve:
        """Seconds of a forward pass of the draft model."""
        return Curve(self.drafter).scaled(1e-3)

    def processor(self) -> Processor:
        """The processor of the holder's event loop."""
        return Processor(self.holder.event_ms * 1e-3, self.holder.node_ms * 1e-3)

    def link_conditions(self, row_bytes: int, hop: int = 0) -> LinkConditions:
        """A link, if the hidden state of a row has `row_bytes` bytes in the simulation; hop 0 leads
        into stage 1.

        The bandwidth is scaled so that a hidden state takes as long as one of the profile's model.
        That holds for features too, which are as wide, and tokens and verdicts are small anyway.
        """
        terms = self.links[hop] if self.links else self.link
        bandwidth = terms.bandwidth_mbit * 1e6 / 8
        return LinkConditions(
            delay=terms.delay_ms * 1e-3,
            bandwidth=bandwidth * row_bytes / self.row_bytes,
            jitter=terms.jitter_ms * 1e-3,
        )


def names() -> list[str]:
    """The names of the profiles that come with the package."""
    folder = files("gardener.rings.simulate") / "profiles"
    return sorted(each.name[:-5] for each in folder.iterdir() if each.name.endswith(".toml"))


def read_profile(name: str) -> Profile:
    """A profile of the package, or a file. Raises UserError."""
    table = _table(name, ())
    try:
        profile = msgspec.convert(table, Profile, str_keys=True)
    except msgspec.ValidationError as error:
        raise UserError(f"profile {name}: {_of(error)}") from error
    curves = {"model": profile.model, "drafter": profile.drafter}
    curves |= {f"stages[{number}]": points for number, points in enumerate(profile.stages)}
    for field, points in curves.items():
        try:
            Curve(points)
        except ValueError as error:
            raise UserError(f"profile {name}: `{field}`: {error}") from error
    return msgspec.structs.replace(profile, name=profile.name or Path(name).stem)


def _of(error: msgspec.ValidationError) -> str:
    """`` `link.delay_ms`: Expected `float`, got `str` ``."""
    what, _, where = str(error).partition(" - at `$")
    return f"`{where.strip('`').lstrip('.')}`: {what}" if where else what


def _table(name: str, below: tuple[str, ...]) -> dict[str, Any]:
    """What the file says, added to what its base says. A table in it is changed key by key."""
    if name in below:
        raise UserError(f"profile {name} is its own `base`, by way of {', '.join(below)}")
    table = _read(name)
    if "base" not in table:
        return table
    base = table.pop("base")
    if not isinstance(base, str):
        raise UserError(f"profile {name}: `base` must be the name of a profile, not {base!r}")
    given = _table(base, (*below, name))
    given.pop("name", None)
    for key, value in table.items():
        old = given.get(key)
        given[key] = (
            {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return given


def _read(name: str) -> dict[str, Any]:
    if name in names():
        with as_file(files("gardener.rings.simulate") / "profiles" / f"{name}.toml") as path:
            return tomllib.loads(path.read_text(encoding="utf-8"))
    path = Path(name).expanduser()
    if not path.is_file():
        shipped = ", ".join(names())
        raise UserError(f"there is no profile {name}: --profile takes a TOML file or {shipped}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"profile {name} cannot be read: {reason(error)}") from error
