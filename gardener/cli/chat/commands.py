"""The commands that begin with a slash: which there are, and which one a line names."""

import difflib
from dataclasses import dataclass

from gardener.errors import UserError


@dataclass(frozen=True)
class Command:
    """`takes`: what follows it."""

    name: str
    takes: str
    help: str


COMMANDS = (
    Command("help", "", "this list"),
    Command("retry", "", "ask the last message again"),
    Command("edit", "", "change the last message (Ctrl-X Ctrl-E: in $EDITOR)"),
    Command("system", "TEXT", "set the system message; '' for none; alone: show it"),
    Command("save", "FILE", "write the messages as JSON"),
    Command("load", "FILE", "go on with messages from a file"),
    Command("stats", "", "figures of the last answer and of this chat"),
    Command("set", "NAME VALUE", "change a setting, as /set temperature 0.7; alone: list them"),
    Command("new", "", "forget all that was said (also /clear)"),
    Command("quit", "", "leave (also Ctrl-D)"),
)

ALSO = {"clear": "new", "exit": "quit"}
"""Other names."""

NAMES = tuple(command.name for command in COMMANDS)


def parse(text: str) -> tuple[str, str] | None:
    """Name and argument of the command that a message is; None: it is none. Raises UserError for
    a command that does not exist, with the nearest one."""
    if not text.startswith("/") or text.startswith("//"):
        return None
    word, *rest = text[1:].split(maxsplit=1) or [""]
    name = ALSO.get(word.lower(), word.lower())
    if name in NAMES:
        return name, rest[0].strip() if rest else ""
    near = difflib.get_close_matches(name, (*NAMES, *ALSO), 1)
    hint = f"did you mean /{near[0]}?" if near else "/help lists them."
    raise UserError(
        f"there is no command /{word}: {hint} (A message that begins with a slash is written //...)"
    )


def message(text: str) -> str:
    """The message that the text is: two slashes at its beginning stand for one."""
    return text[1:] if text.startswith("//") else text


def help_lines() -> list[str]:
    """All commands, and the keys."""
    shown = [(f"/{each.name} {each.takes}".rstrip(), each.help) for each in COMMANDS]
    return [
        *(f"{usage:<18}{told}" for usage, told in shown),
        "",
        f"{'Enter':<18}send the message",
        f"{'Alt-Enter':<18}a new line (also Esc, Enter); a pasted text stays whole",
        f"{'Ctrl-C':<18}stop the answer and keep what was written",
        f"{'//...':<18}a message that begins with a slash",
    ]
