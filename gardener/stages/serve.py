"""A stage of the ring as a process runs it: it listens at once, gets ready, and serves.

What computes is imported, loaded and measured on the worker thread, so that whoever dials meanwhile
is told how far that is. Imports no torch.
"""

import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import gardener
from gardener.net.address import check_free, parse, parse_peer
from gardener.net.keys import Keys
from gardener.net.listen import Listener, refuse_all
from gardener.net.notices import Strangers
from gardener.net.security import secure
from gardener.net.spares import parse_spares
from gardener.protocol.certificates import name_of
from gardener.protocol.messages import Card
from gardener.runtime.memory import kept
from gardener.runtime.trace import Trace
from gardener.runtime.wording import Say
from gardener.runtime.worker import Worker
from gardener.stages.phases import Phase, Phases
from gardener.stages.settings import NodeSettings
from gardener.stages.sight import Machine
from gardener.stages.spare import StandBy
from gardener.stages.startup_lock import in_turn

if TYPE_CHECKING:  # they import torch
    from gardener.stages.node import StageNode
    from gardener.stages.start import Ready

CLOSING = 1.0
"""Seconds that a pass which is being computed at the end has to finish."""


async def serve(
    settings: NodeSettings,
    say: Say,
    watch: Callable[["StageNode"], None] = lambda node: None,
    phases: Phases | None = None,
) -> None:
    """Listen, load the slice, then serve until cancelled. `say` is given lines for the user,
    `watch` the node once it serves; `phases` tells what it does until then. A spare waits for the
    stage in whose place it steps. Raises UserError or PeerLost."""
    phases = phases or Phases(settings.stage, spare=settings.spare)
    listen_at = parse(settings.listen)
    keys = secure(
        settings.keys,
        settings.insecure,
        name_of(settings.stage) if settings.stage else f"spare-{settings.spare}",
        listen_at=listen_at,
        peer=parse_peer(settings.peer) if settings.stage else None,
        spares=parse_spares(settings.spares, settings.spare_after).places,
        say=say,
    )
    check_free(listen_at, f"stage {settings.stage - 1}" if settings.stage > 1 else "the holder")
    machine = Machine(settings.device)
    by = None if settings.stage else StandBy(settings, phases)
    listener = await refuse_all(
        listen_at,
        _stranger(settings),
        phases.refusal,
        lambda: machine.sight(phases.doing),
        keys,
        None if by is None else by.asked,
        distrusted=Strangers(say).tell,
    )
    say(f"listening at {listener.address}")
    try:
        if by is not None:
            say("stands by for a stage that stays away")
            settings = await by.place()
            say(f"steps in the place of stage {settings.stage}, layers {settings.layers}")
        await _serve_at(listener, settings, keys, phases, say, watch)
    finally:
        await listener.close()


async def _serve_at(
    listener: Listener,
    settings: NodeSettings,
    keys: Keys | None,
    phases: Phases,
    say: Say,
    watch: Callable[["StageNode"], None],
) -> None:
    """The same, once it listens and is a stage."""
    spares = parse_spares(settings.spares, settings.spare_after)
    worker = Worker("stage")
    try:
        made = await worker.run(_made, settings, phases, say)
        from gardener.stages.node import StageNode  # late, as all that needs torch

        this = StageNode(
            made.stage,
            made.card,
            worker,
            Trace(),
            listen_at=listener,
            peer=parse_peer(settings.peer),
            patience=settings.patience,
            say=say,
            machine=made.machine,
            keys=keys,
            spares=spares,
            stepped_in=settings.spare is not None,
        )
        phases.begin(Phase.SERVING)
        watch(this)
        with kept():
            await this.run()
    finally:
        worker.close(CLOSING)


def _made(settings: NodeSettings, phases: Phases, say: Say) -> "Ready":
    """The stage, made in its turn on this machine. For the worker thread."""
    from gardener.stages.start import ready  # late: its import takes seconds

    def waits(whom: str) -> None:
        words = f"waits for {whom or 'another stage'} of the same machine to load"
        phases.begin(Phase.IN_LINE, words)
        say(words)

    who = f"stage {settings.stage}"
    return in_turn(who, waits, partial(ready, settings, phases, say))


def _stranger(settings: NodeSettings) -> Card:
    """The card of a stage of which is known only what the user has said."""
    return Card(
        settings.stage, socket.gethostname(), gardener.__version__, 0, 0, 0, 0, "", "", "", 0
    )
