"""The chat itself: reads a message, does what it says or has it answered, until there are no more.

Knows neither terminal nor ring: it is given a place where messages come from, and who answers.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

from gardener.cli.chat import commands
from gardener.cli.chat.dialogue import ChatMessage, Dialogue
from gardener.cli.chat.knobs import Knobs
from gardener.cli.chat.obeyed import Obeyed
from gardener.cli.chat.paint import Painter
from gardener.cli.chat.source import RETRY, ServerError, Source, TurnFigures
from gardener.cli.program import taking_interrupts
from gardener.errors import Busy, GardenerError, PeerLost, StageFailed, UserError
from gardener.holder.prompter import TooLong
from gardener.runtime.wording import Say, printable

LEAVE = "Ctrl-C once more leaves, and so does Ctrl-D"


class Input(Protocol):
    """Where messages come from."""

    @property
    def edits(self) -> bool:
        """Whether a draft can be changed there."""

    @property
    def dropped(self) -> bool:
        """Whether what stood there was thrown away since `read` was called last."""

    async def read(self, draft: str = "") -> str:
        """The next one. Raises EOFError after the last one, KeyboardInterrupt where somebody wants
        to leave, and UserError for what is none."""

    async def confirm(self, question: str) -> bool:
        """Whether the answer to it is yes."""


class Chat:
    """Turns of one dialogue. `failed`: an answer broke, or a message could not be asked."""

    def __init__(
        self,
        source: Source,
        dialogue: Dialogue,
        knobs: Knobs,
        given: Input,
        painter: Callable[[], AbstractAsyncContextManager[Painter]],
        say: Say,
    ) -> None:
        """`painter` gives one for each answer, which is written while one stays in it."""
        self.dialogue, self.knobs = dialogue, knobs
        self.answers: list[TurnFigures] = []
        self.failed = False
        self._source, self._input, self._painter, self._say = source, given, painter, say
        self._obeyed = Obeyed(self)
        self._draft = ""  # stands in the input next
        self._edits = False  # the next message takes the place of the last one
        self._interrupts = 0  # in a row, at an empty input

    async def run(self) -> None:
        """Until the end of the input, or /quit."""
        with taking_interrupts(self._interrupted):
            await self._run()

    def _interrupted(self) -> bool:
        """Ctrl-C came, and there was nothing to stop; False: leave."""
        self._edits = False
        self._interrupts += 1
        if self._interrupts > 1 or not self._input.edits:
            return False
        self._say(LEAVE)
        return True

    async def _run(self) -> None:
        while True:
            draft, self._draft = self._draft, ""
            try:
                text = await self._input.read(draft)
            except EOFError:
                return
            except KeyboardInterrupt:
                if not self._interrupted():
                    return
                continue
            self._interrupts = 0
            if text.strip() and not await self._take(text):
                return

    async def _take(self, text: str) -> bool:
        """Do what the text says; False: leave."""
        edits, self._edits = self._changes, False
        try:
            named = commands.parse(text)
            if named is not None:
                return await self._obeyed.obey(*named)
            await self._ask(text, edits)
        except GardenerError as error:
            self.failed = True
            out = _way_out(error)
            self._say(f"error: {error}{out.replace('/retry', 'Enter') if self._edits else out}")
        return True

    async def _ask(self, text: str, edits: bool) -> None:
        """Have this answered; `edits`: in place of the last message."""
        before = tuple(self.dialogue.turns) if edits else ()
        if edits:
            self.dialogue.take_back_question()
        if self.dialogue.ask(commands.message(text)):
            self._say("the message before got no answer, and is left out")
        try:
            await self.answer(before)
        finally:
            if before and tuple(self.dialogue.turns) == before:
                self._draft, self._edits = text, True

    @property
    def _changes(self) -> bool:
        """Whether what is typed now takes the place of the last message."""
        return self._edits and not self._input.dropped

    # --- for the commands --------------------------------------------------------------------

    def say(self, line: str) -> None:
        """A line for the user."""
        self._say(line)

    async def confirm(self, question: str) -> bool:
        """Whether the answer to it is yes."""
        return await self._input.confirm(question)

    @property
    def is_typed(self) -> bool:
        """Whether somebody is there who can be asked."""
        return self._input.edits

    def edit(self) -> None:
        """Let the last message stand in the input. Raises UserError if there is none, or no input
        for it."""
        if not self._input.edits:
            raise UserError("/edit needs a terminal: write the message anew")
        question = self.dialogue.question
        if question is None:
            raise UserError("nothing was asked yet")
        self._draft = f"/{question}" if question.startswith("/") else question
        self._edits = True

    @property
    def used(self) -> str:
        """How much of the context the dialogue takes up."""
        used = "0"
        if self.dialogue.turns:
            last = self.answers[-1] if self.answers else TurnFigures()
            used = "?" if last.prompt is None else str(last.prompt + last.tokens)
        most = self._source.context
        return f"{used} tokens" if most is None else f"{used}/{most} tokens"

    @property
    def status(self) -> str:
        """The line at the bottom."""
        shown = ["changing the last message"] if self._changes else []
        shown += [self._source.trouble] if self._source.trouble else []
        shown.append(printable(self._source.model))
        shown += [] if self.knobs.policy is None else [self.knobs.policy]
        return " · ".join([*shown, self.used, *self.knobs.changed()])

    async def answer(self, before: Sequence[ChatMessage] = ()) -> None:
        """Have the last question answered. Ctrl-C stops that; what was written stays. Raises
        GardenerError if it broke, and keeps what was written as well. `before`: turns that come
        back if nothing was written."""
        task = asyncio.create_task(self._stream(before))
        stopped = False

        def stop() -> bool:
            nonlocal stopped
            again, stopped = stopped, True
            return self._input.edits and not again and task.cancel()

        with taking_interrupts(stop):
            try:
                await task
            except asyncio.CancelledError:
                if not stopped:
                    raise
                kept = before and tuple(self.dialogue.turns) == tuple(before)
                self._say(f"stopped; {'what was there before stays' if kept else RETRY}")

    async def _stream(self, before: Sequence[ChatMessage]) -> None:
        figures, text, whole = TurnFigures(), "", False
        try:
            answer = self._source.answer(self.dialogue.messages(), self.knobs, figures)
            async with self._painter() as painter, aclosing(answer) as parts:
                async for part in parts:
                    text += part.text
                    painter.push(part)
            whole = True
        except asyncio.CancelledError:
            figures.finish = "stopped"
            raise
        finally:
            if whole or text:
                self.dialogue.answer(text, stopped=not whole)
            elif before:
                self.dialogue.turns[:] = before
            if figures.prompt is not None or text:
                self.answers.append(figures)
        self._tell_end(figures)

    def _tell_end(self, figures: TurnFigures) -> None:
        if figures.finish == "length":
            self._say(f"ended after {figures.tokens} tokens: /set max_tokens allows more")
        elif figures.finish == "context":
            self._say("ended where the context is full: /new begins anew")
        elif not figures.tokens:
            self._say("the model says nothing")
        if figures.note is not None:
            self._say(printable(figures.note))


def _way_out(error: GardenerError) -> str:
    """What to do in a chat, where the error itself knows of commands alone."""
    match error:
        case PeerLost() if RETRY not in str(error):
            return " (/retry opens the ring again and asks once more)"
        case ServerError(out=out):
            return f" ({out})"
        case Busy() | StageFailed():
            return f" ({RETRY})"
        case TooLong():
            return " (/new begins anew)"
    return ""
