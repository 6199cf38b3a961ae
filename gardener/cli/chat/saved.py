"""A dialogue as a file: JSON with messages as OpenAI's interface has them."""

import json
import os
from pathlib import Path
from typing import Literal

import msgspec

from gardener.cli.chat.dialogue import ChatMessage, Dialogue, Role
from gardener.errors import UserError, reason
from gardener.runtime.wording import check_text

ROLES: tuple[Role, Role] = ("user", "assistant")
"""They take turns."""

LARGEST = 64 * 2**20
"""Bytes of a file beyond which it is no dialogue that a model could read."""


class TextPart(msgspec.Struct):
    """A part of a message that is a list of them."""

    type: Literal["text"]
    text: str


class SavedMessage(msgspec.Struct):
    """A message; fields that are not known here are left out."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """All of it."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class SavedRequest(msgspec.Struct):
    """A request as clients send it."""

    messages: list[SavedMessage]


def path_of(text: str) -> Path:
    """The file that a command names."""
    return Path(text).expanduser()


def save(dialogue: Dialogue, path: Path, *, replace: bool = False) -> None:
    """Write the dialogue. Raises FileExistsError unless it may `replace` a file, and UserError for
    what cannot be written."""
    text = json.dumps([each.plain() for each in dialogue.messages()], indent=2, ensure_ascii=False)
    if not replace and path.exists():
        raise FileExistsError(path)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")  # so that no half of it is ever seen
    try:
        beside.write_text(f"{text}\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({reason(error)}): name another file") from error


def load(path: Path) -> Dialogue:
    """Read a dialogue: a list of messages, or an object with `messages`. Raises UserError for
    what cannot be read or is none, which names the message."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise UserError(f"{path} has {size} bytes: a dialogue has {LARGEST} at most")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    try:
        found = msgspec.json.decode(data, type=list[SavedMessage] | SavedRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no dialogue: {error}; it is unchanged here") from error
    return _dialogue(path, found.messages if isinstance(found, SavedRequest) else found)


def _dialogue(path: Path, messages: list[SavedMessage]) -> Dialogue:
    dialogue = Dialogue()
    for number, each in enumerate(messages):
        check_text(each.text, f"{path}: message {number + 1}")
        if each.role in ("system", "developer"):
            if number:
                raise UserError(f"{path}: message {number + 1} is of the system: only 1 may be")
            dialogue.system = each.text
            continue
        due = ROLES[len(dialogue.turns) % 2]
        if each.role != due:
            raise UserError(
                f"{path}: message {number + 1} is of the {each.role}, where one of the {due} is "
                "due: user and assistant take turns"
            )
        dialogue.turns.append(ChatMessage(due, each.text))
    if not messages:
        raise UserError(f"{path} holds no message")
    return dialogue
