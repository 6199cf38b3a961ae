"""What a user says about a ring, and what follows from it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from gardener.decoding.limits import MAX_REQUESTS, MOST_REQUESTS, PATIENCE_LOST
from gardener.draft.factory import DraftSettings
from gardener.errors import UserError
from gardener.holder.templates import read as read_template
from gardener.model.quants import AUTO, HEAD_QUANTS, QUANTS
from gardener.net.spares import SPARE_AFTER
from gardener.protocol.room import MOST_CONTEXT
from gardener.rings.cores import SPARE, crowded, threads_for

if TYPE_CHECKING:  # only a simulation needs it
    from gardener.rings.simulate.profile import Profile

DTYPES = ("float32", "bfloat16", "float16")
"""What stages can compute in."""

ONE_BY_ONE = frozenset(("plain", "serial", "alternating"))
"""Policies under which only one stage or drafter computes at a time."""


@dataclass(frozen=True)
class RingSettings:
    """How to come by a ring. Exactly one of `local`, `peer` and `simulate` is given.

    local     start this many stages on this machine, and end them afterwards
    peer      host:port of stage 1 of a ring that stands
    simulate  simulate this many stages of a `profile`, under a virtual clock
    model     a Hugging Face folder, a .gguf file, a hub id with a `revision`, or a built-in name
    template  the chat template of prompts: a name, or a Jinja file; None: the model's own, or the
              one that fits its name
    system    the system message of chats; empty: none, None: as the template has it
    listen    host:port where the last stage of a `peer` ring finds this holder
    dtype, device, threads, quant, quant_head, graphs  how stages that are started here compute;
              graphs: on CUDA, whether kernels are recorded and started together
    kv_memory  GiB for the keys and values of all stages that are started here; None: half of what
              is free there
    context   most tokens of prompt and answer together; None: what the model was made for
    patience  seconds to wait for the ring to close
    patience_lost  seconds for which requests wait for a ring that broke; 0: they end with it
    draft     which drafters guess
    policies  that will run in it, as far as they are known
    max_requests  that run at the same time; others wait for their turn
    keep_prefixes keep what was computed of a request, for those that begin with the same tokens
    keys      folder of the keys with which the links of a `peer` ring are secured
    insecure  without keys, such links may leave this machine
    spares    host:port,... of spares that step in the place of stage 1 of a `peer` ring, if it
              stays away for `spare_after` seconds
    """

    local: int | None = None
    peer: str | None = None
    simulate: int | None = None
    model: str = "smollm2-135m"
    revision: str | None = None
    template: str | None = None
    system: str | None = None
    listen: str = "127.0.0.1:7000"
    dtype: str = "float32"
    device: str = "cpu"
    threads: int | None = None
    quant: str = "none"
    quant_head: str = AUTO
    kv_memory: float | None = None
    context: int | None = None
    patience: float = 120.0
    patience_lost: float = PATIENCE_LOST
    draft: DraftSettings = field(default_factory=DraftSettings)
    profile: str = "loopback"
    policies: tuple[str, ...] = ()
    max_requests: int = MAX_REQUESTS
    keep_prefixes: bool = True
    keys: Path | None = None
    spares: str = ""
    spare_after: float = SPARE_AFTER
    insecure: bool = False
    graphs: bool = True

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.local, self.peer, self.simulate)) != 1:
            raise UserError(
                "say where the stages are: --local N starts N of them here, --peer HOST:PORT uses "
                "a ring whose stage 1 listens there, --cluster FILE (or cluster.toml in this "
                "folder) the one that it describes, --simulate N only reckons with N of them"
            )
        self._check_numbers()
        kinds = {"dtype": DTYPES, "quant": (*QUANTS, AUTO), "quant_head": HEAD_QUANTS}
        for name, known in kinds.items():
            given = getattr(self, name)
            if given not in known:
                raise UserError(f"{name} {given} is unknown: take {', '.join(known)}")
        if self.template is not None:
            read_template(self.template)  # find out now, not when the ring stands

    def _check_numbers(self) -> None:
        for name in ("local", "simulate", "threads", "max_requests"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise UserError(f"{name} is {given}, and starts at 1")
        if not 0 <= self.patience_lost < inf:
            raise UserError(
                f"patience_lost is {self.patience_lost:g} s: give it 0 (an answer ends when the "
                "ring breaks) or more"
            )
        if self.kv_memory is not None and not 0 < self.kv_memory < inf:
            raise UserError(f"kv_memory is {self.kv_memory:g} GiB, and must be more than 0")
        if self.context is not None and not 2 <= self.context <= MOST_CONTEXT:
            raise UserError(
                f"context is {self.context} tokens, prompt and answer together: it lies between 2 "
                f"and {MOST_CONTEXT}"
            )
        if self.max_requests > MOST_REQUESTS:
            raise UserError(
                f"max_requests is {self.max_requests}: a ring takes {MOST_REQUESTS} at a time, "
                "others wait"
            )

    @property
    def crowded(self) -> bool:
        """Whether the stages and the drafter share the cores of one machine. Raises UserError for
        an unknown profile."""
        if self.simulate is not None:
            return self._read_profile().crowded
        return self.local is not None and crowded(self.local)

    @property
    def threads_each(self) -> int | None:
        """Threads of each stage of a local ring, and of the drafter. None: torch decides.

        Those that compute at the same time share the cores: with more threads than cores each would
        wait for the others in every matrix product. One core is left to whatever else this machine
        does, see `SPARE`.
        """
        if self.threads is not None or self.local is None:
            return self.threads
        alone = self.crowded and bool(self.policies) and ONE_BY_ONE.issuperset(self.policies)
        return threads_for(1 if alone else self.local, SPARE)

    def node_options(self) -> Sequence[str]:
        """Options of `gardener-node` that the stages of a local ring get."""
        assert self.local is not None
        return (
            *("--dtype", self.dtype, "--device", self.device),
            *("--quant", self.quant, "--quant-head", self.quant_head),
            *("--threads", str(self.threads_each)),
            *("--patience", str(self.patience), "--beside", str(self.local)),
            *(() if self.kv_memory is None else ("--kv-memory", str(self.kv_memory))),
            *(() if self.context is None else ("--context", str(self.context))),
            *(() if self.graphs else ("--no-graphs",)),
        )

    def facts(self) -> dict[str, str]:
        """What a reader of figures from this ring should know, by what it is about."""
        if self.simulate is None:
            return {}
        holder = self._read_profile().holder
        charged = f"{holder.event_ms:g} ms an event, {holder.node_ms:g} ms a node"
        return {"the holder's time": charged if any((holder.event_ms, holder.node_ms)) else "free"}

    def loop(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """Makes the event loop that the ring needs. Raises UserError for an unknown profile, and if
        a package is missing."""
        if self.simulate is None:
            return uvloop.new_event_loop
        from gardener.rings.simulate.loop import Loop  # late: needs a package that may not be there

        return partial(Loop, self._read_profile().seed)

    def _read_profile(self) -> "Profile":
        from gardener.rings.simulate.profile import read_profile  # late: only a simulation needs it

        return read_profile(self.profile)
