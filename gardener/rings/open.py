"""A holder in a ring that stands: one of this machine's own, one that is there already, or one that
is simulated."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import uvloop

import gardener
from gardener.decoding.curves import steep
from gardener.draft.drafter import Drafter
from gardener.draft.factory import DraftSettings, drafters
from gardener.draft.resolve import resolve_head
from gardener.errors import PeerLost, UserError
from gardener.holder.chat_template import Prompter
from gardener.holder.holder import Holder
from gardener.model.checkpoint.parts import HOLDER, check_stages, is_split, own_part
from gardener.model.checkpoint.resolve import resolve
from gardener.model.checkpoint.slices import EmbeddingAndHead
from gardener.net.address import parse, parse_peer
from gardener.protocol.messages import Card
from gardener.rings.local import (
    FEW_SPINS,
    SPARE,
    SPINS,
    LocalRing,
    cores,
    crowded,
    share_cores,
    threads_for,
)
from gardener.runtime.trace import Trace
from gardener.runtime.worker import Worker

Say: TypeAlias = Callable[[str], None]

AT_ONCE = 1.0
"""Seconds for a ring that stands already to close; its links are timed meanwhile, so that nothing
else is done."""

ONE_BY_ONE = frozenset(("plain", "serial", "alternating"))
"""Policies under which only one stage or drafter computes at a time."""


@dataclass(frozen=True)
class RingSettings:
    """How to come by a ring. Exactly one of `local`, `peer` and `simulate` is given.

    policies: that will be run in it, as far as they are known.
    """

    model: str
    revision: str | None
    local: int | None
    peer: str | None
    listen: str
    dtype: str
    device: str
    threads: int | None
    quant: str
    patience: float
    draft: DraftSettings = field(default_factory=DraftSettings)
    simulate: int | None = None
    profile: str = "loopback"
    policies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.local, self.peer, self.simulate)) != 1:
            raise UserError(
                "say where the stages are: --local N starts N of them here, --peer HOST:PORT uses "
                "a ring whose stage 1 listens there, --simulate N only reckons with N of them"
            )

    @property
    def crowded(self) -> bool:
        """Do the stages and the drafter share the cores of one machine? Raises UserError for a
        profile that is none."""
        if self.simulate is not None:
            from gardener.rings.simulate.profile import read_profile  # late, as below

            return read_profile(self.profile).crowded
        return self.local is not None and crowded(self.local)

    def facts(self) -> dict[str, str]:
        """What there is to say of figures from this ring, by what it is about."""
        if self.simulate is None:
            return {}
        from gardener.rings.simulate.profile import read_profile  # late, as above

        holder = read_profile(self.profile).holder
        charged = f"{holder.event_ms:g} ms an event, {holder.node_ms:g} ms a node"
        return {"the holder's time": charged if any((holder.event_ms, holder.node_ms)) else "free"}

    def loop(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """Makes the event loop that the ring needs. Raises UserError for a profile that is none,
        and if a package is missing."""
        if self.simulate is None:
            return uvloop.new_event_loop
        from gardener.rings.simulate.loop import Loop  # late: needs a package that may not be there
        from gardener.rings.simulate.profile import read_profile

        return partial(Loop, read_profile(self.profile).seed)


@asynccontextmanager
async def open_ring(
    settings: RingSettings, say: Say, heard: Say, progress: Say
) -> AsyncIterator[tuple[Holder, Path]]:
    """Connect, and leave nothing behind. `say` is for the user, `heard` gets the stages' lines, and
    `progress` how far something is that takes long; an empty text when it is done.

    Runs on a loop that `settings.loop` gave. Yields the holder, whose `prepare` is to be told what
    it will be asked, and the model's directory. Raises UserError or PeerLost with one sentence.
    """
    if settings.simulate is not None:
        async with _simulated(settings, settings.simulate, say, heard, progress) as pair:
            yield pair
        return
    share_cores(SPINS if settings.local else FEW_SPINS)
    if settings.local is None:
        assert settings.peer is not None
        model = await asyncio.to_thread(holder_folder, settings, say)
        holder = Holder(
            await asyncio.to_thread(holder_card, model),
            (),
            Trace(),
            listen_at=parse(settings.listen),
            peer=parse_peer(settings.peer),
            patience=settings.patience,
            say=say,
        )
        async with _closing(holder):
            await _connect_and_equip(holder, partial(_drafters, settings, model, say))
            remark(holder.cards, settings.policies, say)
            yield holder, model
        return
    model, theirs = await asyncio.to_thread(_local_folders, settings, settings.local, say)
    start = Start(settings.local, say, heard)
    local = LocalRing(settings.local, theirs, node_options(settings), start.heard)
    start.begin(settings.model)
    try:
        await local.start()
        holder = Holder(
            await asyncio.to_thread(holder_card, model),
            await asyncio.to_thread(_drafters, settings, model, say),
            Trace(),
            listen_at=local.listen_at,
            peer=local.peer,
            patience=settings.patience,
            say=lambda line: None,
            advise=local.advise,
        )
        async with _closing(holder):
            await _connect_unless_one_dies(holder, local)
            start.end()
            tell_sharing(settings, say)
            remark(holder.cards, settings.policies, say)
            yield holder, model
    finally:
        await local.stop()


class Start:
    """Says how far a ring of this machine's own is on its way to stand."""

    def __init__(self, stages: int, say: Say, heard: Say) -> None:
        self._stages, self._say, self._heard = stages, say, heard
        self._began = time.monotonic()

    def begin(self, model: str) -> None:
        """The stages are being started."""
        whom = "1 stage" if self._stages == 1 else f"{self._stages} stages"
        self._say(f"starting {whom} of {model} here, which takes some seconds")

    def heard(self, line: str) -> None:
        """A stage printed this."""
        self._heard(line)
        if loaded := re.match(r"stage (\d+): .* loaded in ", line):
            self._say(
                f"stage {loaded[1]} of {self._stages} has loaded its layers ({self._since()})"
            )

    def end(self) -> None:
        """All of them stand."""
        self._say(f"the ring stands ({self._since()})")

    def _since(self) -> str:
        return f"{time.monotonic() - self._began:.1f} s"


@asynccontextmanager
async def _simulated(
    settings: RingSettings, stages: int, say: Say, heard: Say, progress: Say
) -> AsyncIterator[tuple[Holder, Path]]:
    from gardener.rings.simulate.profile import read_profile  # late, as above
    from gardener.rings.simulate.ring import simulate

    profile = read_profile(settings.profile)
    model = resolve(settings.model, settings.revision, say=say)
    say(f"simulated: {stages} stages of profile {profile.name}, all times are virtual")
    draft = settings.draft
    if draft.dtype == "auto":  # chosen by what is faster here and now, which may change
        draft = replace(draft, dtype="float32")
    async with simulate(
        stages,
        profile,
        model,
        _drafters(replace(settings, draft=draft), model, say),
        patience=settings.patience,
        say=say,
        heard=heard,
        progress=progress,
    ) as holder:
        yield holder, model


async def read_prompter(settings: RingSettings, folder: Path) -> Prompter:
    """The model's tokenizer. Beside the loop, on which a ring that stands wants answers meanwhile;
    but nothing can be waited for under a virtual clock. Raises UserError."""
    if settings.simulate is not None:
        return Prompter(folder)
    return await asyncio.to_thread(Prompter, folder)


def _local_folders(
    settings: RingSettings, stages: int, say: Callable[[str], None]
) -> tuple[Path, Path]:
    """The holder's folder of a local ring, and what its stages are given: the whole model, or one
    that was split into as many stages. Raises UserError."""
    given = Path(settings.model).expanduser()
    if not is_split(given):
        whole = resolve(settings.model, settings.revision, say=say)
        return whole, whole
    check_stages(given, stages, "--local")
    return own_part(given, HOLDER), given


def holder_folder(settings: RingSettings, say: Callable[[str], None]) -> Path:
    """The model without its layers: with what a draft head borrows only if one will be used.
    Raises UserError."""

    def fetched(held: EmbeddingAndHead | None) -> Path:
        return resolve(
            settings.model, settings.revision, choose=lambda shape: held, part=HOLDER, say=say
        )

    model = fetched(None)  # whether a head is shipped for it, its config and index tell
    return fetched(EmbeddingAndHead()) if settings.draft.borrows(model) else model


def _drafters(settings: RingSettings, model: Path, say: Callable[[str], None]) -> Sequence[Drafter]:
    """Made on a thread: loading a head takes a while."""
    if threads := _threads(settings):
        import torch  # late, as below

        torch.set_num_threads(threads)
    return drafters(
        settings.draft,
        model,
        lambda name: resolve_head(name, say),
        lambda name: resolve(name, None, say=say, option="--draft-model"),
        say,
    )


def holder_card(model: Path) -> Card:
    """What the holder says about itself."""
    # Late, since these import torch, which takes a second: the stages of a local ring start first.
    from gardener.model.architecture import Architecture
    from gardener.model.checkpoint.tensors import fingerprint

    shape = Architecture.read(model)
    return Card(
        stage=0,
        name="holder",
        version=gardener.__version__,
        first=0,
        end=0,
        layers=shape.layers,
        width=shape.width,
        model=fingerprint(model),
        dtype="",
        quant="",
        memory=0,
    )


def _threads(settings: RingSettings) -> int | None:
    """Of each stage of a local ring, and of the drafter; None: torch decides. Those that compute at
    the same time share the cores: with more threads than cores each would wait for the others in
    every product. One core is left to whatever else this machine does, see `SPARE`."""
    if settings.threads is not None or settings.local is None:
        return settings.threads
    alone = (
        settings.crowded and bool(settings.policies) and ONE_BY_ONE.issuperset(settings.policies)
    )
    return threads_for(1 if alone else settings.local, SPARE)


def tell_sharing(settings: RingSettings, say: Callable[[str], None]) -> None:
    """Say how the stages of a local ring share this machine's processor."""
    if settings.device != "cpu":
        return
    threads = _threads(settings)
    chosen = "as --threads says" if settings.threads is not None else "--threads changes that"
    say(
        f"each stage here computes with {threads} thread{'s' * (threads != 1)} "
        f"on {cores()} core{'s' * (cores() > 1)} ({chosen})"
    )


def node_options(settings: RingSettings) -> Sequence[str]:
    """Options that the stages of a local ring get."""
    assert settings.local is not None
    return (
        *("--dtype", settings.dtype, "--device", settings.device, "--quant", settings.quant),
        *("--threads", str(_threads(settings))),
        *("--patience", str(settings.patience)),
    )


def remark(cards: Sequence[Card], policies: Sequence[str], say: Callable[[str], None]) -> None:
    """Say of stages where guesses hardly pay that it is so: what nodes print, few look at."""
    if tuple(policies) == ("plain",):
        return
    for card in cards:
        if why := steep(card.costs):
            say(f"stage {card.stage}: {why}")


@asynccontextmanager
async def _closing(holder: Holder) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await holder.close()


async def _connect_and_equip(holder: Holder, load: Callable[[], Sequence[Drafter]]) -> None:
    """The drafters are loaded once the ring stands, or while it waits for a stage: they need torch,
    which takes seconds, and nobody else gets to compute while it is imported."""
    worker = Worker("loading")  # not one of the loop's, for which it would wait at the end
    connect = asyncio.create_task(holder.connect())
    tasks: list[asyncio.Task[Any]] = [connect]
    try:
        await asyncio.wait(tasks, timeout=AT_ONCE)
        if not connect.done() or connect.exception() is None:
            tasks.append(asyncio.create_task(worker.run(load)))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        holder.equip(tasks[-1].result())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        worker.close(patience=0.0)


async def _connect_unless_one_dies(holder: Holder, local: LocalRing) -> None:
    """A stage that ends while the ring forms is the reason why it never will."""
    connect = asyncio.create_task(holder.connect())
    died = asyncio.create_task(local.died())
    try:
        await asyncio.wait([connect, died], return_when=asyncio.FIRST_COMPLETED)
        if not connect.done():
            raise PeerLost(died.result())
        connect.result()
    finally:
        for task in (connect, died):
            task.cancel()
        await asyncio.gather(connect, died, return_exceptions=True)
