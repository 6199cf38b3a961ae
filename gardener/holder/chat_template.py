"""Turns into a prompt: a chat template at work, the model's own or one that was given.

It is rendered by transformers' `apply_chat_template`, which adds no special tokens of its own: what
the template writes is all there is, and its special tokens become what they are.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from gardener.errors import UserError
from gardener.holder.templates import Template

Message: TypeAlias = Mapping[str, Any]
"""One turn as transformers has it: `role`, which is system, user, assistant or tool, and `content`;
an assistant's may have `tool_calls`, each a `function` with a `name` and `arguments`, an object."""

FIRST, ANSWER, SECOND, SYSTEM_TEXT = "Firstturn", "Theanswer", "Secondturn", "Systemtext"
TOOL = "thetool"
"""Stand for what is put into a template, to find it in what comes out. Words of letters, with which
no tokenizer joins the marks around them into one token."""

MARK = re.compile("Message[0-9]+text|Call[0-9]+of[0-9]+name")
"""Stand for the texts of many messages, and for the names of calls, see `_marked`. They end in
letters, so that none is the beginning of another."""

SYSTEM, ASSISTANT = "system", "assistant"
"""Roles."""

NO_FIELDS = {"parameters": {"type": "object", "properties": {}}}
"""Of a function without arguments."""


@dataclass(frozen=True)
class FixedText:
    """What a chat template writes itself, as tokens: before the first user turn, between a user
    turn and its answer, and between an answer and the next user turn. `lead`: the text that stands
    at the end of `opening` and is tokenised with the first turn."""

    opening: tuple[int, ...]
    answering: tuple[int, ...]
    asking: tuple[int, ...]
    before: str
    lead: str


@dataclass(frozen=True)
class _Regard:
    """What a template makes of a system message: why it takes none, if so, and whether it writes a
    text of its own where none is given."""

    refusal: str = ""
    own: bool = False


@dataclass(frozen=True)
class Extras:
    """What a template is given beside the messages."""

    tools: Sequence[Mapping[str, Any]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


NOTHING = Extras()


class TemplateError(UserError):
    """A chat template does not do what is asked of it."""

    def __init__(self, where: str, what: str, way_out: str, advice: str) -> None:
        """`where`: which template; `what` it does. `advice`: for who starts the ring; `way_out`:
        for everybody, it may be empty."""
        outs = [each for each in (way_out, advice) if each]
        theirs = f"the model's chat template {what}" + (f": {way_out}" if way_out else "")
        super().__init__(f"{where} {what}: {', or '.join(outs)}", theirs)


class ChatTemplate:
    """Writes a dialogue as the prompt for the next answer."""

    def __init__(self, tokenizer: Any, template: Template | None, where: str) -> None:
        """`template`: None for the tokenizer's own. `where`: what to call it in an error."""
        self._tokenizer, self._template, self._where = tokenizer, template, where
        self._options = {} if template is None else {"chat_template": template.text}

    def tokens(
        self,
        messages: Sequence[Message],
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
        check: Callable[[str], None] = lambda text: None,
    ) -> list[int]:
        """The prompt for an answer to the last of these messages. `system`: the system message
        where they begin with none; empty: none, not even one that the template would write by
        itself; None: as the template has it. `tools`: functions that may be called, as JSON schema.
        `options`: variables for the template. `check` is given the text before it becomes tokens.

        Raises UserError for a template that fails, or leaves out what it is given.
        """
        if taken := self._ours.intersection(options or ()):
            raise UserError(
                f"{min(taken)} is not a variable of the chat template, and is set otherwise: leave "
                "it out"
            )
        whole = self._with_system(messages, system)
        extras = Extras(tools or None, options or {})
        text = self._apply(whole, extras)
        check(text)
        self._keeps(whole, extras)
        return self._encode(text)

    def text(self, turns: Sequence[str], system: str | None = None) -> str:
        """The prompt as text; user and assistant take the turns by turns."""
        return self._apply(self._with_system(in_turns(turns), system))

    @cached_property
    def takes_tools(self) -> bool:
        """Whether it writes the tools that may be called."""
        tool = {"type": "function", "function": {"name": TOOL, "description": TOOL, **NO_FIELDS}}
        try:
            return TOOL in self._apply([user(FIRST)], Extras([tool]))
        except UserError:
            return False

    def fixed(self, system: str | None = None) -> FixedText:
        """What stands around the turns. Blanks at the end of what stands before a user turn belong
        to the turn, since tokenizers join them to the word that follows.

        Raises UserError for a template that fails or changes what is put into it.
        """
        once = self.text([FIRST], system)
        twice = self.text([FIRST, ANSWER, SECOND], system)
        before, found, answering = once.partition(FIRST)
        upto, again, rest = twice.partition(ANSWER)
        asking, third, _ = rest.partition(SECOND)
        if not (found and again and third):
            raise UserError(f"{self._where} does not write turns as they are")
        opening = before.rstrip(" ")
        made = FixedText(
            tuple(self._encode(opening)),
            self.behind(before + FIRST, answering),
            self.behind(upto + ANSWER, asking.rstrip(" ")),
            opening,
            before[len(opening) :],
        )
        if not made.opening or not made.answering:
            raise UserError(f"{self._where} writes nothing before a user turn, or after it")
        return made

    def behind(self, before: str, text: str) -> tuple[int, ...]:
        """`text` as tokens where it follows on `before`; by itself, if the two share a token."""
        head, whole = self._encode(before), self._encode(before + text)
        shared = whole[: len(head)] == head
        return tuple(whole[len(head) :] if shared else self._encode(text))

    def check(self) -> None:
        """Raises UserError for a template that fails, or into which no user turn goes."""
        if FIRST not in self.text([FIRST]):
            raise self._error("leaves the user's text out", "", "name another --template")

    @cached_property
    def ends(self) -> frozenset[int]:
        """The added token that the template writes after an answer, which therefore ends it; none
        where it writes something else there, or takes no answers."""
        try:
            _, found, rest = self.text([FIRST, ANSWER, SECOND]).partition(ANSWER)
        except UserError:
            return frozenset()
        first = self._encode(rest.lstrip())[:1] if found else []
        return frozenset(token for token in first if token in self._tokenizer.added_tokens_decoder)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _with_system(self, messages: Sequence[Message], text: str | None) -> list[Message]:
        """The messages with the system message, as far as there must be one. Raises UserError where
        it would not stand in the prompt."""
        if messages and messages[0]["role"] == SYSTEM:
            text, messages = messages[0]["content"], messages[1:]
        if text is None:
            return list(messages)
        if not text.strip():
            return [*([system_message("")] if self._regard.own else []), *messages]
        if self._regard.refusal:
            raise self._error(
                f"takes no system message ({self._regard.refusal})",
                "say it in the prompt",
                "name another --template",
            )
        return [system_message(text), *messages]

    @cached_property
    def _regard(self) -> _Regard:
        plain = self._apply([user(FIRST)])
        try:
            with_one = self._apply([system_message(SYSTEM_TEXT), user(FIRST)])
        except UserError as error:
            return _Regard(_short(error.__cause__ or error))
        before, found, after = with_one.partition(SYSTEM_TEXT)
        if not found:
            return _Regard("it leaves it out without a word")
        head, after = plain.partition(FIRST)[0], after.partition(FIRST)[0]
        around = head.startswith(before) and head.endswith(after)
        return _Regard(own=around and len(head) > len(before) + len(after))

    def _keeps(self, messages: Sequence[Message], extras: Extras) -> None:
        """Raises UserError if a message would not stand in the prompt, or a call in one.

        What is looked for are words in their place: the texts themselves may be found elsewhere,
        and a template may write them otherwise, a tool's as JSON for instance.
        """
        if _ordinary(messages):
            return
        marked = [_marked(number, message) for number, message in enumerate(messages)]
        written = set(MARK.findall(self._apply([message for message, _ in marked], extras)))
        for number, (message, words) in enumerate(marked):
            if lost := [what for word, what in words.items() if word not in written]:
                raise self._error(
                    f"leaves {lost[0]} of message {number + 1} (role {message['role']}) out",
                    "say it in a user's",
                    "name another --template",
                )

    def _apply(self, messages: Sequence[Message], extras: Extras = NOTHING) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=extras.tools,
                    add_generation_prompt=True,
                    tokenize=False,
                    tokenizer_bos=self._bos,
                    **self._options,
                    **extras.options,
                )
            )
        except Exception as error:  # a template is a program: it may end in any of them
            raise self._error(
                f"failed ({_short(error)})", "", "mend it, name another --template, or use --raw"
            ) from error

    def _error(self, what: str, way_out: str, advice: str) -> TemplateError:
        return TemplateError(self._where, what, way_out, advice)

    @cached_property
    def _ours(self) -> frozenset[str]:
        """Names of what a template is rendered with, which are no variables of its own."""
        taken = inspect.signature(self._tokenizer.apply_chat_template).parameters
        return frozenset(taken) | {"messages", "tokenizer_bos"}

    @cached_property
    def _bos(self) -> str:
        """The token that the tokenizer puts before any text; empty if it puts none."""
        bos = self._tokenizer.bos_token_id
        begins = bos is not None and list(self._tokenizer("").input_ids)[:1] == [bos]
        return str(self._tokenizer.bos_token) if begins else ""


def in_turns(turns: Sequence[str]) -> list[Message]:
    """Messages of user and assistant by turns."""
    roles = ("user", ASSISTANT)
    return [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]


def user(text: str) -> Message:
    """A user's turn."""
    return {"role": "user", "content": text}


def system_message(text: str) -> Message:
    """The system message."""
    return {"role": SYSTEM, "content": text}


def _ordinary(messages: Sequence[Message]) -> bool:
    """A system message at most, and then user and assistant by turns: the dialogue that every
    template is made for, and that `check` looks at."""
    turns = messages[1:] if messages[0]["role"] == SYSTEM else messages
    return all(
        message["role"] == ("user", ASSISTANT)[number % 2] and not message.get("tool_calls")
        for number, message in enumerate(turns)
    )


def _marked(number: int, message: Message) -> tuple[Message, dict[str, str]]:
    """The message with words in place of its text and the names of its calls; and what these words
    stand for. An assistant's text is not asked for: some templates leave out what it thought."""
    words: dict[str, str] = {}
    marked = dict(message)
    if message["role"] != ASSISTANT and message["content"].strip():
        marked["content"] = f"Message{number}text"
        words[marked["content"]] = "the text"
    if calls := message.get("tool_calls"):
        named = [f"Call{number}of{place}name" for place in range(len(calls))]
        words |= dict.fromkeys(named, "a call")
        marked["tool_calls"] = [
            {**call, "function": {**call["function"], "name": name}}
            for call, name in zip(calls, named, strict=True)
        ]
    return marked, words


def _short(error: BaseException) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return textwrap.shorten(reason, 300)
