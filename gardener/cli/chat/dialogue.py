"""What was said so far: a system message, and turns of user and assistant."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class ChatMessage:
    """`stopped`: an answer that was not written to its end."""

    role: Role
    content: str
    stopped: bool = False

    def plain(self) -> dict[str, str]:
        """As OpenAI's interface has it."""
        return {"role": self.role, "content": self.content}


@dataclass
class Dialogue:
    """Questions and answers by turns; the last question may still wait for its answer.

    system: the system message; empty: none, not even one that the chat template would write by
    itself; None: as the template has it.
    """

    system: str | None = None
    turns: list[ChatMessage] = field(default_factory=list)

    @property
    def is_waiting(self) -> bool:
        """Whether the last question has no answer."""
        return len(self.turns) % 2 == 1

    @property
    def question(self) -> str | None:
        """The last one."""
        asked = [each.content for each in self.turns if each.role == "user"]
        return asked[-1] if asked else None

    def ask(self, text: str) -> bool:
        """Add a question. It takes the place of one that got no answer; whether there was one."""
        replaced = self.is_waiting
        if replaced:
            self.turns.pop()
        self.turns.append(ChatMessage("user", text))
        return replaced

    def answer(self, text: str, stopped: bool = False) -> None:
        """Add the answer to the last question."""
        if not self.is_waiting:
            raise ValueError("there is no question without an answer")
        self.turns.append(ChatMessage("assistant", text, stopped))

    def take_back_answer(self) -> bool:
        """Let the last question wait again; whether there is one."""
        if self.turns and not self.is_waiting:
            self.turns.pop()
        return self.is_waiting

    def take_back_question(self) -> None:
        """Forget the last question, with its answer."""
        if self.take_back_answer():
            self.turns.pop()

    def clear(self) -> None:
        """Forget all turns. The system message stays."""
        self.turns.clear()

    def messages(self) -> list[ChatMessage]:
        """All of it, the system message first."""
        first = [] if self.system is None else [ChatMessage("system", self.system)]
        return [*first, *self.turns]


def pairs(turns: Sequence[ChatMessage]) -> tuple[str, list[tuple[str, str]]]:
    """The last question, and what was asked and answered before it."""
    *before, last = turns
    texts = [each.content for each in before]
    return last.content, list(zip(texts[::2], texts[1::2], strict=True))
