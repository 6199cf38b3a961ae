"""A spare: it listens, and does nothing until it is asked to step in the place of a stage that
stays away. Then it is that stage, and goes on listening where it was.

Who asks is the neighbour before the lost stage, which knows its card: the layers, what they compute
in, and where it dialled the next stage (`Hello.missed`). The model is the spare's own; whether it
is the right one, its new neighbours find out as they always do.
"""

import asyncio
from dataclasses import replace
from typing import get_args

from gardener.errors import UserError
from gardener.model.quants import AUTO, HEAD_QUANTS, QUANTS
from gardener.net.address import Address, is_loopback, parse, parse_peer
from gardener.net.security import within
from gardener.net.spares import steps_in
from gardener.protocol.cards import mismatch
from gardener.protocol.messages import Card
from gardener.protocol.tensors import DType
from gardener.runtime.wording import printable
from gardener.stages.phases import Phase, Phases
from gardener.stages.settings import NodeSettings


class StandBy:
    """What a spare is asked, and whether it takes it."""

    def __init__(self, settings: NodeSettings, phases: Phases) -> None:
        """`settings`: of the spare; what they say of a stage does not count."""
        self._settings, self._phases = settings, phases
        self._missed: asyncio.Future[Card] = asyncio.get_running_loop().create_future()
        phases.begin(Phase.STANDING_BY)

    async def place(self) -> NodeSettings:
        """Waits until it is asked; the settings of the stage that it is then."""
        missed = await self._missed
        return replace(
            self._settings,
            stage=missed.stage,
            peer=missed.peer,
            stages=None,
            layers=f"{missed.first}-{missed.end - 1}",
            dtype=missed.dtype,
            quant=missed.quant,
            quant_head=missed.head_quant or AUTO,
            context=missed.longest or self._settings.context,
        )

    def asked(self, asker: Card, missed: Card) -> str:
        """See `greeting.Replace`."""
        who, whom = self._settings.who, f"stage {missed.stage}"
        if self._missed.done():
            doing = self._phases.doing or "is about to serve"
            return f"{who} {steps_in(self._missed.result().stage)}: it {doing}"
        if why := self._problem(asker, missed):
            return f"{who} cannot step in the place of {whom}: {why}"
        self._missed.set_result(missed)
        self._phases.begin(Phase.STARTING)
        self._phases.stage = missed.stage
        return f"{who} {steps_in(missed.stage)}"

    def _problem(self, asker: Card, missed: Card) -> str | None:
        """Nothing that cannot be is taken: a spare is one only once."""
        if missed.stage != asker.stage + 1:
            return f"stage {asker.stage} does not stand before it"
        return self._way_problem(missed) or _card_problem(missed) or mismatch(asker, missed)

    def _way_problem(self, missed: Card) -> str | None:
        """Why the next peer could not be dialled from here."""
        try:
            after = parse_peer(missed.peer)
        except UserError:
            return "it is not known where it dialled the next stage"
        here = parse(self._settings.listen)
        if is_loopback(after.host) and isinstance(here, Address) and not is_loopback(here.host):
            return f"it dialled {after}, which only its own machine can reach"
        secured = self._settings.keys is not None or self._settings.insecure
        if not secured and not within(after):
            return (
                f"it dialled {after}, which is not known to be this machine, and without keys "
                "links stay within this one: start the spare with --keys DIR, or with --insecure "
                "if you trust every machine in between"
            )
        return None


def _card_problem(missed: Card) -> str | None:
    """Why no stage can be what this card says."""
    kinds = (
        ("dtype", missed.dtype, get_args(DType)),
        ("quant", missed.quant, QUANTS),
        ("head_quant", missed.head_quant or AUTO, HEAD_QUANTS),
    )
    for name, value, known in kinds:
        if value not in known:
            return f"its {name} is {printable(value)!r}, and not one of {', '.join(known)}"
    if missed.first == missed.end:
        return "its card names no layers"
    return None
