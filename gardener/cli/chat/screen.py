"""The terminal of a chat: where messages are typed, on prompt_toolkit."""

from collections.abc import Callable, Iterable
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app_or_none, run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style

from gardener.cli.chat import commands, knobs
from gardener.decoding.policy import POLICIES

PROMPT = "> "
ALIGNED = "  "
"""What stands before further lines of a message."""


class Slashes(Completer):
    """Completes commands, names of settings, and policies."""

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """What a line may go on with."""
        text = document.text_before_cursor
        if not is_command(document.text):
            return
        words = text.split(" ")
        last = words[-1]
        for word, told in _choices(words[:-1]):
            if word.startswith(last):
                yield Completion(word, -len(last), display_meta=told)


def is_command(text: str) -> bool:
    """Whether it looks like one."""
    return text.startswith("/") and not text.startswith("//") and "\n" not in text


def _choices(before: list[str]) -> list[tuple[str, str]]:
    """Words that may stand after these, and what they mean."""
    match before:
        case []:
            return [(f"/{each.name}", each.help) for each in commands.COMMANDS]
        case ["/set"]:
            return [(name, "") for name in knobs.NAMES]
        case ["/set", "policy"]:
            return [(name, "") for name in POLICIES]
    return []


class Screen:
    """Reads messages. `toolbar` gives the line at the bottom."""

    edits = True
    dropped = False

    def __init__(
        self,
        history: History,
        toolbar: Callable[[], str],
        *,
        colour: bool = True,
        given: Input | None = None,
        output: Output | None = None,
    ) -> None:
        """`given` and `output`: other places than the terminal."""
        self._toolbar, self._colour = toolbar, colour
        self._where: dict[str, Any] = {"input": given, "output": output}
        self._session: PromptSession[str] = PromptSession(
            history=history,
            completer=Slashes(),
            complete_while_typing=Condition(self._completes),
            complete_style=CompleteStyle.COLUMN,
            reserve_space_for_menu=6,
            multiline=True,
            prompt_continuation=ALIGNED,
            key_bindings=_keys(self._drop),
            bottom_toolbar=self._bottom,
            enable_open_in_editor=True,
            enable_suspend=True,
            tempfile_suffix=".md",
            color_depth=None if colour else ColorDepth.DEPTH_1_BIT,
            style=Style.from_dict({"prompt": "bold"}),
            **self._where,
        )

    async def read(self, draft: str = "") -> str:
        """The next message; `draft` stands in the input already. Raises EOFError after Ctrl-D and
        KeyboardInterrupt after Ctrl-C, where nothing was typed."""
        self.dropped = False
        text = await self._session.prompt_async(
            [("class:prompt", PROMPT)], default=draft, handle_sigint=False
        )
        return text.replace("\r\n", "\n").replace("\r", "\n")

    async def confirm(self, question: str) -> bool:
        """Whether the answer to it is yes."""
        asking: PromptSession[str] = PromptSession(**self._where)
        try:
            answer = await asking.prompt_async(f"{question} [y/N] ", handle_sigint=False)
        except (EOFError, KeyboardInterrupt):
            return False
        return answer.strip().lower() in ("y", "yes")

    def refresh(self) -> None:
        """Draw the line at the bottom again: what it says has changed."""
        self._session.app.invalidate()

    def _drop(self) -> None:
        self.dropped = True

    def _completes(self) -> bool:
        return is_command(self._session.default_buffer.text)

    def _bottom(self) -> StyleAndTextTuples:
        return [("", f" {self._toolbar()}")]


def told_above(say: Callable[[str], None]) -> Callable[[str], None]:
    """The same, so that a line that comes while a message is typed stands above it."""

    def tell(line: str) -> None:
        app = get_app_or_none()
        if app is not None and app.is_running:
            run_in_terminal(lambda: say(line))
        else:
            say(line)

    return tell


def _keys(dropped: Callable[[], None]) -> KeyBindings:
    """`dropped` is called when what was typed is thrown away."""
    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _break(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def _drop(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
            dropped()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return keys
