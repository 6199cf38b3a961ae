"""From a node and its trace to a picture. Runs on the loop, a few times a second, only reads."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import RenderableType

from gardener.cli.view.curve import Sparkline
from gardener.cli.view.live import Live
from gardener.cli.view.node import Connection, NodePicture, Work, render
from gardener.net.link import Link
from gardener.runtime.trace import Record
from gardener.runtime.wording import span

if TYPE_CHECKING:
    from gardener.stages.node import StageNode

LATELY = 3.0
"""Seconds over which rates and times are averaged."""


class NodeWatch:
    """The live view of a node; `live` is the screen."""

    def __init__(self, stage: int, device: str, listening: str, peer: str) -> None:
        self.live = Live(self._look)
        self._stage, self._device = stage, device
        self._listening, self._peer = listening, peer
        self._began = time.monotonic()
        self._node: StageNode | None = None
        self._seen: Record | None = None
        self._rows, self._forwards = Sparkline(1.0), Sparkline(1.0)
        self._seconds, self._dropped = Sparkline(1.0), 0

    def begin(self, node: "StageNode") -> None:
        """The slice is loaded."""
        self._node = node

    def _look(self) -> Callable[[int, int], RenderableType]:
        picture = self.picture(time.monotonic())
        return lambda width, height: render(picture, width, height)

    def picture(self, now: float) -> NodePicture:
        """How things are. `now`: monotonic seconds."""
        node, said = self._node, self.live.stderr.last(200)
        if node is None:
            return NodePicture(
                self._stage,
                uptime=now - self._began,
                listening=self._listening,
                peer=self._peer,
                said=said,
            )
        records = node.trace.after(self._seen)
        self._seen = records[-1] if records else self._seen
        for record in records:
            self._read(record)
        card = node.card
        return NodePicture(
            stage=self._stage,
            state=_state(node),
            ready=node.ready,
            holds=f"{span(card.first, card.end)} of {card.layers}, "
            f"{card.memory / 1e6:.0f} MB, {card.dtype}"
            f"{'' if card.quant == 'none' else ' ' + card.quant} on {self._device}, at {card.name}",
            uptime=now - self._began,
            listening=self._listening,
            peer=self._peer,
            upstream=_connection(node.upstream),
            downstream=_connection(node.downstream),
            work=self._work(node, now),
            said=said,
        )

    def _read(self, record: Record) -> None:
        if record.what == "computed":
            self._rows.add(record.at, record.rows)
            self._forwards.add(record.at, 1)
            self._seconds.add(record.at, record.seconds)
        elif record.what == "dropped":
            self._dropped += record.rows

    def _work(self, node: "StageNode", now: float) -> Work:
        rows, forwards = self._rows.lately(now, LATELY), self._forwards.lately(now, LATELY)
        seconds = self._seconds.lately(now, LATELY)
        return Work(
            waiting=node.scheduler.waiting,
            requests=len(node.scheduler.requests),
            rows_per_second=rows / LATELY,
            curve=self._rows.bars(now),
            forward=seconds / forwards if forwards else None,
            rows_per_forward=rows / forwards if forwards else 0.0,
            busy=min(seconds / LATELY, 1.0),
            forwards=int(self._forwards.total),
            rows=int(self._rows.total),
            dropped=self._dropped,
        )


def _state(node: "StageNode") -> str:
    if node.ready:
        return "serving" if node.scheduler.requests else "ready"
    before = node.upstream is None and node.card.stage > 1
    after = node.downstream is None and node.card.end < node.card.layers
    if before and after:
        return "waiting for both neighbours"
    return f"waiting for the stage {'before' if before else 'after'}"


def _connection(link: Link | None) -> Connection | None:
    if link is None:
        return None
    name = link.peer.name
    return Connection(
        str(link), name, link.silent, link.round_trip, link.received_bytes, link.sent_bytes
    )
