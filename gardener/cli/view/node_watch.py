"""The live view of a node. It runs on the event loop, a few times a second, and only reads."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from gardener.cli.view.live import Live
from gardener.cli.view.node_frame import HELP, draw
from gardener.cli.view.node_status import LinkStatus, NodeStatus, WorkStatus
from gardener.net.link import Link
from gardener.protocol.cards import arithmetic, exactness
from gardener.protocol.messages import Card
from gardener.runtime.trace import Record
from gardener.runtime.wording import span
from gardener.stages.phases import Phases
from gardener.watch.rates import RateHistory

if TYPE_CHECKING:
    from gardener.stages.node import StageNode

LATELY = 3.0
"""Seconds over which rates and times are averaged."""


class NodeWatch:
    """The live view of a node; `live` is its screen."""

    def __init__(self, phases: Phases, device: str, listening: str, peer: str) -> None:
        self.live = Live(self.status, draw, HELP)
        self._phases, self._device = phases, device
        self._listening, self._peer = listening, peer
        self._began = time.monotonic()
        self._node: StageNode | None = None
        self._seen: Record | None = None
        self._rows, self._forwards, self._seconds = (RateHistory(1.0) for _ in range(3))
        self._dropped = 0

    def begin(self, node: "StageNode") -> None:
        """Watch a node that has loaded its layers."""
        self._node = node

    def status(self, now: float) -> NodeStatus:
        """How things are at `now`, in monotonic seconds."""
        status = NodeStatus(
            self._phases.stage,
            self._phases.doing.removeprefix("is ") or "ready",
            uptime=now - self._began,
            listening=self._listening,
            peer=self._peer,
            said=self.live.stderr.last(200),
        )
        node = self._node
        if node is None:
            return status
        records = node.trace.after(self._seen)
        self._seen = records[-1] if records else self._seen
        for record in records:
            self._read(record)
        return replace(
            status,
            state=_state(node),
            ready=node.ready,
            holds=_holds(node.card, self._device),
            upstream=_link(node.upstream),
            downstream=_link(node.downstream),
            work=self._work(node, now),
        )

    def _read(self, record: Record) -> None:
        if record.what == "computed":
            self._rows.add(record.at, record.rows)
            self._forwards.add(record.at, 1)
            self._seconds.add(record.at, record.seconds)
        elif record.what == "dropped":
            self._dropped += record.rows

    def _work(self, node: "StageNode", now: float) -> WorkStatus:
        rows, forwards = self._rows.lately(now, LATELY), self._forwards.lately(now, LATELY)
        seconds = self._seconds.lately(now, LATELY)
        return WorkStatus(
            waiting=node.scheduler.waiting,
            requests=len(node.scheduler.requests),
            rows_per_second=rows / LATELY,
            rates=self._rows.bars(now),
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


def _holds(card: Card, device: str) -> str:
    exact = exactness([card], "this stage").partition(":")[0]
    return (
        f"{span(card.first, card.end)} of {card.layers}, {card.memory / 1e6:.0f} MB, "
        f"{arithmetic(card)} on {device}, {exact}, at {card.name}"
    )


def _link(link: Link | None) -> LinkStatus | None:
    if link is None:
        return None
    traffic = link.received_bytes, link.sent_bytes
    return LinkStatus(str(link), link.peer.name, link.silent, link.round_trip, *traffic)
