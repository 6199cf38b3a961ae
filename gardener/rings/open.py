"""Opens a ring: one of this machine's own, one that stands already, or one that is simulated."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from gardener.decoding.policy import default_policy
from gardener.draft.drafter import Drafter
from gardener.errors import PeerLost, reason
from gardener.holder.holder import Holder
from gardener.holder.prompter import Prompter
from gardener.model.checkpoint.resolve import resolve
from gardener.net.address import parse, parse_peer
from gardener.net.security import secure
from gardener.net.spares import parse_spares
from gardener.protocol.certificates import HOLDER
from gardener.rings.context import agreed_context, tell_short_drafters
from gardener.rings.cores import FEW_SPINS, SPINS, share_cores
from gardener.rings.equipment import (
    holder_card,
    holder_folder,
    load_drafters,
    local_folders,
    prompter_reader,
)
from gardener.rings.local import LocalRing
from gardener.rings.opened import OpenRing
from gardener.rings.remarks import (
    Start,
    ignore,
    tell_choice,
    tell_sharing,
    tell_steep_costs,
)
from gardener.rings.settings import RingSettings
from gardener.runtime.memory import kept
from gardener.runtime.trace import Trace
from gardener.runtime.wording import Say
from gardener.runtime.worker import Worker

T = TypeVar("T")

Standing: TypeAlias = AbstractAsyncContextManager[tuple[Holder, Path, Prompter]]
"""A holder whose ring stands for as long as one stays in it, the model's folder and prompter."""

AT_ONCE = 1.0
"""Seconds for a ring that stands already to close; its links are timed meanwhile, so that nothing
else is done."""


@asynccontextmanager
async def open_ring(
    settings: RingSettings, say: Say = ignore, heard: Say = ignore, progress: Say = ignore
) -> AsyncIterator[OpenRing]:
    """Open a ring. It is ready inside `async with`; at its end it is closed, and nothing is left
    behind.

    `say` is told what there is to say to the user, `heard` what the stages print, and `progress`
    how far something is that takes long (an empty text when it is done).

    A simulated ring needs an event loop that `settings.loop` makes; the others run on any. Raises
    UserError or PeerLost with one sentence.
    """
    if not settings.policies:  # the threads of stages follow from what will run
        settings = replace(settings, policies=(default_policy(settings.crowded),))
    async with _standing(settings, say, heard, progress) as (holder, folder, prompter):
        holder.admission.max_requests = settings.max_requests
        holder.keeps = settings.keep_prefixes
        prompter.context = agreed_context(settings.context, prompter.context, holder.cards, say)
        tell_choice(settings, holder.cards, say)
        tell_short_drafters(holder.drafters.all, prompter.context, say)
        with kept():
            yield OpenRing(settings, holder, folder, prompter)


def _standing(settings: RingSettings, say: Say, heard: Say, progress: Say) -> Standing:
    if settings.simulate is not None:
        return _simulated(settings, settings.simulate, say, heard, progress)
    if settings.local is not None:
        return _local(settings, settings.local, say, heard)
    assert settings.peer is not None
    return _joined(settings, settings.peer, say)


@asynccontextmanager
async def _local(
    settings: RingSettings, stages: int, say: Say, heard: Say
) -> AsyncIterator[tuple[Holder, Path, Prompter]]:
    share_cores(SPINS)
    model, theirs = await asyncio.to_thread(local_folders, settings, stages, say)
    start = Start(stages, say, heard)
    local = LocalRing(stages, theirs, settings.node_options(), start.heard)
    start.begin(settings.model)
    try:
        await local.start()
        holder = Holder(
            await asyncio.to_thread(holder_card, model),
            await asyncio.to_thread(load_drafters, settings, model, say),
            Trace(),
            listen_at=local.listen_at,
            peer=local.peer,
            patience=settings.patience,
            patience_lost=settings.patience_lost,
            say=lambda line: None,
            news=say,
            advise=local.advise,
        )
        async with _closing(holder):
            async with _meanwhile(prompter_reader(settings, model, say)) as reading:
                await _connect_unless_one_dies(holder, local)
                start.end()
                tell_sharing(settings, say)
                tell_steep_costs(holder.cards, settings.policies, say)
                prompter = await reading
            async with _kept_up(holder, local):
                yield holder, model, prompter
    finally:
        await local.stop()


@asynccontextmanager
async def _joined(
    settings: RingSettings, peer: str, say: Say
) -> AsyncIterator[tuple[Holder, Path, Prompter]]:
    share_cores(FEW_SPINS)
    listen_at, stage_1 = parse(settings.listen), parse_peer(peer)
    spares = parse_spares(settings.spares, settings.spare_after)
    keys = await asyncio.to_thread(
        secure,
        *(settings.keys, settings.insecure, HOLDER),
        listen_at=listen_at,
        peer=stage_1,
        spares=spares.places,
        say=say,
    )
    model = await asyncio.to_thread(holder_folder, settings, say)
    holder = Holder(
        await asyncio.to_thread(holder_card, model),
        (),
        Trace(),
        listen_at=listen_at,
        peer=stage_1,
        patience=settings.patience,
        keys=keys,
        spares=spares,
        patience_lost=settings.patience_lost,
        say=say,
        news=say,
    )
    async with _closing(holder):
        await _connect_and_equip(holder, partial(load_drafters, settings, model, say))
        tell_steep_costs(holder.cards, settings.policies, say)
        yield holder, model, await asyncio.to_thread(prompter_reader(settings, model, say))


@asynccontextmanager
async def _simulated(
    settings: RingSettings, stages: int, say: Say, heard: Say, progress: Say
) -> AsyncIterator[tuple[Holder, Path, Prompter]]:
    from gardener.rings.simulate.profile import read_profile  # late: only a simulation needs them
    from gardener.rings.simulate.ring import simulate

    profile = read_profile(settings.profile)
    model = resolve(settings.model, settings.revision, say=say)
    say(f"simulated: {stages} stages of profile {profile.name}, all times are virtual")
    prompter = prompter_reader(settings, model, say)()  # a virtual clock cannot wait for a thread
    draft = settings.draft
    if draft.dtype == "auto":  # chosen by what is faster here and now, which may change
        draft = replace(draft, dtype="float32")
    async with simulate(
        stages,
        profile,
        model,
        load_drafters(replace(settings, draft=draft), model, say),
        eos=prompter.eos,
        patience=settings.patience,
        say=say,
        heard=heard,
        progress=progress,
    ) as holder:
        yield holder, model, prompter


@asynccontextmanager
async def _closing(holder: Holder) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await holder.close()


@asynccontextmanager
async def _kept_up(holder: Holder, local: LocalRing) -> AsyncIterator[None]:
    """Inside, stages that end are started again."""

    async def keep() -> None:
        try:
            holder.give_up(PeerLost(await local.keep()))
        except Exception as error:  # no process can be started, for want of memory for instance
            holder.give_up(PeerLost(f"a stage cannot be started again: {reason(error)}"))

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


@asynccontextmanager
async def _meanwhile(work: Callable[[], T]) -> AsyncIterator[asyncio.Task[T]]:
    """`work` on a thread, beside what is done inside; one that leaves does not wait for it."""
    worker = Worker("reading")  # not one of the loop's, for which it would wait at the end
    task = asyncio.create_task(worker.run(work))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        worker.close(patience=0.0)


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
    """Wait for the ring, or for a stage that ends meanwhile: then it will never close."""
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
