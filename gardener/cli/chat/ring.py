"""A ring of one's own that answers, and stays open between two questions."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from typing import Self

from gardener.cli.chat.dialogue import ChatMessage, pairs
from gardener.cli.chat.knobs import Knobs
from gardener.cli.chat.source import Part, TurnFigures, nothing
from gardener.decoding.policy import Bounds
from gardener.holder.session import Session
from gardener.holder.splitter import Splitter
from gardener.rings.open import open_ring
from gardener.rings.opened import OpenRing
from gardener.rings.settings import RingSettings
from gardener.runtime import clock
from gardener.runtime.wording import Say
from gardener.watch.snapshot import reading

PERIOD = 0.2
"""Seconds between two reports about the prompt."""

ENDS = {"eos": "stop", "abandoned": "stopped", "failed": "error", "lost": "error"}
"""Finish reasons as a person reads them."""


class RingSource:
    """Opens its ring with `async with`, and again whenever it is asked after it broke."""

    def __init__(
        self, settings: RingSettings, bounds: Bounds, say: Say, heard: Say, progress: Say
    ) -> None:
        # A system message stands in the dialogue, where it may change.
        self._settings, self._bounds = replace(settings, system=None), bounds
        self._say, self._heard, self._progress = say, heard, progress
        self._stack = AsyncExitStack()
        self._ring: OpenRing | None = None
        self.context: int | None = settings.context
        self.model = settings.model
        self.changed = nothing

    async def __aenter__(self) -> Self:
        await self.ring()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._close()

    async def ring(self) -> OpenRing:
        """The ring, opened if need be. Raises UserError or PeerLost."""
        if self._ring is not None and self._ring.holder.given_up:
            self._say("the ring is lost: it is opened again")
            await self._close()
        if self._ring is None:
            opening = open_ring(self._settings, self._say, self._heard, self._progress)
            self._ring = await self._stack.enter_async_context(opening)
            self.context = self._ring.prompter.context
            watching = asyncio.create_task(self._watch(self._ring))
            self._stack.callback(watching.cancel)
        return self._ring

    @property
    def trouble(self) -> str:
        """See `Source`."""
        if self._ring is None:
            return ""
        if self._ring.holder.given_up:
            return "the ring is lost: the next message opens it again"
        return self._ring.holder.condition

    async def _watch(self, ring: OpenRing) -> None:
        await ring.holder.failure()
        self.changed()

    async def _close(self) -> None:
        self._ring = None
        await self._stack.aclose()

    async def answer(
        self, messages: Sequence[ChatMessage], knobs: Knobs, figures: TurnFigures
    ) -> AsyncGenerator[Part]:
        """See `Source`."""
        ring = await self.ring()
        system = messages[0].content if messages[0].role == "system" else None
        asked, history = pairs(messages if system is None else messages[1:])
        begin = clock.now()
        session = ring.ask(
            asked,
            history=history,
            system=system,
            max_new_tokens=knobs.max_tokens,
            policy=knobs.policy,
            bounds=self._bounds,
            sampling=knobs.sampling,
            ignore_eos=knobs.ignore_eos,
        )
        texts = Splitter(ring.prompter.backend, session.prompt)
        try:
            async with session:
                with _telling(session, self._progress) as hush:
                    async for piece in session:
                        hush()
                        figures.came(clock.now() - begin)
                        for text, guessed in texts.parts(piece) or ((piece.text, False),):
                            yield Part(text, guessed)
        finally:
            _fill(figures, session)


def _fill(figures: TurnFigures, session: Session) -> None:
    counts, speculation = session.speculation.counts, session.speculation
    figures.prompt, figures.cached = speculation.asked, session.cached_tokens
    figures.tokens, figures.policy = counts.emitted, speculation.policy.name
    figures.accepted, figures.missed = counts.accepted, counts.missed
    figures.drafted, figures.segments = counts.drafted, counts.segments
    reason = session.finish_reason or "lost"
    figures.finish = ENDS.get(reason, reason)


@contextmanager
def _telling(session: Session, progress: Say) -> Iterator[Callable[[], None]]:
    """Show how much of the prompt is computed, until what this gives is called."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(PERIOD)
            progress(reading(session.speculation))

    telling = asyncio.create_task(tell())

    def hush() -> None:
        if not telling.cancelled() and telling.cancel():
            progress("")

    try:
        yield hush
    finally:
        hush()
