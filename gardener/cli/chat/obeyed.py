"""What each command does to a chat."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from gardener.cli.chat import commands, saved, stats
from gardener.cli.chat.dialogue import ChatMessage, Dialogue
from gardener.cli.chat.knobs import Knobs
from gardener.cli.chat.source import TurnFigures
from gardener.errors import UserError
from gardener.runtime.wording import harmless

HOT = 2.0
"""The highest temperature that is of use; OpenAI's servers take none above."""


class Obeying(Protocol):
    """A chat, as far as commands reach."""

    dialogue: Dialogue
    knobs: Knobs
    answers: list[TurnFigures]

    @property
    def used(self) -> str:
        """How much of the context is."""

    def say(self, line: str) -> None:
        """A line for the user."""

    async def confirm(self, question: str) -> bool:
        """Whether the answer to it is yes."""

    def edit(self) -> None:
        """Let the last message stand in the input."""

    async def answer(self, before: Sequence[ChatMessage] = ()) -> None:
        """Have the last question answered; `before` comes back if nothing is written."""

    @property
    def is_typed(self) -> bool:
        """Whether somebody is there who can be asked."""


class Obeyed:
    """Carries commands out."""

    def __init__(self, chat: Obeying) -> None:
        self._chat = chat
        self._kept: list[ChatMessage] = []  # turns that are in a file
        self._do: dict[str, Callable[[str], Awaitable[None]]] = {
            "help": self._help,
            "retry": self._retry,
            "edit": self._edit,
            "system": self._system,
            "save": self._save,
            "load": self._load,
            "stats": self._stats,
            "set": self._set,
            "new": self._new,
        }

    async def obey(self, name: str, argument: str) -> bool:
        """Do it; False: leave. Raises GardenerError for what cannot be done."""
        if name == "quit":
            return False
        takes = next(each.takes for each in commands.COMMANDS if each.name == name)
        if argument and not takes:
            raise UserError(f"/{name} takes nothing, not {argument!r}")
        await self._do[name](argument)
        return True

    def _lines(self, *lines: str) -> None:
        for line in lines:
            self._chat.say(line)

    async def _help(self, argument: str) -> None:
        self._lines(*commands.help_lines())

    async def _retry(self, argument: str) -> None:
        chat = self._chat
        before = () if chat.dialogue.is_waiting else tuple(chat.dialogue.turns)
        if not chat.dialogue.take_back_answer():
            raise UserError("nothing was asked yet")
        last = chat.answers[-1].finish if chat.answers else "error"
        if last in ("stop", "length", "context") and chat.knobs.policy and chat.knobs.is_certain:
            chat.say("the same settings give the same answer: /set temperature 0.7 gives others")
        await chat.answer(before)

    async def _edit(self, argument: str) -> None:
        self._chat.edit()

    async def _system(self, argument: str) -> None:
        dialogue = self._chat.dialogue
        if argument:
            dialogue.system = "" if argument in ("''", '""') else argument
        self._lines(f"system message: {_shown(dialogue.system)}")

    async def _save(self, argument: str) -> None:
        path = saved.path_of(_file(argument))
        try:
            saved.save(self._chat.dialogue, path)
        except FileExistsError:
            if not await self._chat.confirm(f"{path} is there already: write over it?"):
                raise UserError(f"{path} is there already, and was left as it is") from None
            saved.save(self._chat.dialogue, path, replace=True)
        self._kept = list(self._chat.dialogue.turns)
        self._lines(f"{len(self._chat.dialogue.messages())} messages are in {path}")

    async def _load(self, argument: str) -> None:
        path = saved.path_of(_file(argument))
        dialogue, old = saved.load(path), self._chat.dialogue
        if old.turns and old.turns != self._kept and self._chat.is_typed:
            sure = await self._chat.confirm("what was said here was not saved: forget it?")
            if not sure:
                raise UserError(f"{path} was not loaded: /save FILE keeps what was said here")
        if dialogue.system is None and old.system is not None:
            dialogue.system = old.system
            self._lines("the file has no system message: the one from before stays")
        self._chat.dialogue = dialogue
        self._kept = list(dialogue.turns)
        self._chat.answers.clear()
        waits = "; the last one has no answer: /retry asks it" if dialogue.is_waiting else ""
        self._lines(f"{len(dialogue.messages())} messages from {path}{waits}")
        for each in dialogue.turns[-2:]:
            self._lines(f"{each.role}: {harmless(each.content, chr(10))}")

    async def _stats(self, argument: str) -> None:
        self._lines(*stats.lines(self._chat.answers, self._chat.used))

    async def _set(self, argument: str) -> None:
        chat = self._chat
        if not argument:
            self._lines(*chat.knobs.lines())
            return
        name, _, value = argument.replace("=", " ", 1).partition(" ")
        if not value.strip():
            raise UserError(f"/set {name} needs a value, as /set temperature 0.7")
        chat.knobs = chat.knobs.set(name, value.strip())
        self._lines(", ".join(chat.knobs.changed()) or "all settings are as usual")
        if chat.knobs["temperature"] > HOT:
            self._lines(f"a temperature above {HOT:g} makes the words next to random")

    async def _new(self, argument: str) -> None:
        self._chat.dialogue.clear()
        self._lines("all that was said is forgotten; the system message stays")


def _file(argument: str) -> str:
    if not argument:
        raise UserError("name a file, as /save chat.json")
    return argument


def _shown(system: str | None) -> str:
    if system is None:
        return "as the chat template has it"
    return harmless(system, "\n") or "none"
