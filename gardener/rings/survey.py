"""What the stages of a standing ring say of themselves, without asking it anything."""

from pathlib import Path

from gardener.holder.holder import Holder
from gardener.net.address import parse, parse_peer
from gardener.net.security import secure
from gardener.protocol.certificates import HOLDER
from gardener.protocol.messages import Card
from gardener.rings.equipment import holder_card
from gardener.runtime.trace import Trace
from gardener.runtime.wording import Say


async def survey(
    model: Path,
    peer: str,
    listen: str,
    patience: float,
    say: Say,
    keys: Path | None = None,
    insecure: bool = False,
) -> tuple[Card, ...]:
    """The cards of the ring whose stage 1 listens at `peer`, with the holder's own in front; its
    last stage dials `listen`. `say` is told what it waits for. `keys`, `insecure`: see
    `RingSettings`.

    Raises UserError or PeerLost with one sentence.
    """
    listen_at, stage_1 = parse(listen), parse_peer(peer)
    holder = Holder(
        holder_card(model),
        (),
        Trace(),
        listen_at=listen_at,
        peer=stage_1,
        patience=patience,
        say=say,
        keys=secure(keys, insecure, HOLDER, listen_at=listen_at, peer=stage_1, spares=(), say=say),
    )
    try:
        cards = await holder.connect()
        return (holder.ring.card, *cards)
    finally:
        await holder.close()
