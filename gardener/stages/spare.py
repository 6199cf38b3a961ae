"""A spare: it listens, and does nothing until it is asked to step in the place of a stage that
stays away. Then it is that stage, and goes on listening where it was.

Who asks is the neighbour before the lost stage, which knows its card: the layers, what they compute
in, and where it dialled the next stage (`Hello.missed`). The model is the spare's own; whether it
is the right one, its new neighbours find out as they always do.
"""

import asyncio
from dataclasses import replace

from gardener.errors import UserError
from gardener.net.address import Address, is_loopback, parse, parse_peer
from gardener.protocol.messages import Card
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
            quant_head=missed.head_quant,
            context=missed.longest or self._settings.context,
        )

    def asked(self, asker: Card, missed: Card) -> str:
        """See `greeting.Replace`."""
        who, whom = self._phases.who, f"stage {missed.stage}"
        if self._missed.done():
            return f"{who} {self._phases.doing}"
        if why := self._problem(asker, missed):
            return f"{who} cannot step in the place of {whom}: {why}"
        self._missed.set_result(missed)
        self._phases.begin(Phase.STARTING, f"steps in the place of {whom}")
        answer = f"{who} {self._phases.doing}"
        self._phases.stage = missed.stage
        return answer

    def _problem(self, asker: Card, missed: Card) -> str | None:
        if missed.stage != asker.stage + 1:
            return f"stage {asker.stage} does not stand before it"
        try:
            after = parse_peer(missed.peer)
        except UserError:
            return "it is not known where it dialled the next stage"
        here = parse(self._settings.listen)
        if is_loopback(after.host) and isinstance(here, Address) and not is_loopback(here.host):
            return f"it dialled {after}, which only its own machine can reach"
        return None
