"""Turns into a prompt: a chat template at work, the model's own or one that was given.

It is rendered by transformers' `apply_chat_template`, which adds no special tokens of its own: what
the template writes is all there is, and its special tokens become what they are.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gardener.errors import UserError
from gardener.holder.templates import Template

FIRST, ANSWER, SECOND, SYSTEM = "Firstturn", "Theanswer", "Secondturn", "Systemtext"
"""Stand for what is put into a template, to find it in what comes out. Words of letters, with which
no tokenizer joins the marks around them into one token."""


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


class ChatTemplate:
    """Writes a dialogue as the prompt for the next answer."""

    def __init__(self, tokenizer: Any, template: Template | None, where: str) -> None:
        """`template`: None for the tokenizer's own. `where`: what to call it in an error."""
        self._tokenizer, self._template, self._where = tokenizer, template, where
        self._options = {} if template is None else {"chat_template": template.text}

    def tokens(self, turns: Sequence[str], system: str | None = None) -> list[int]:
        """The prompt for an answer to the last of these turns, which user and assistant take by
        turns. `system`: the system message; empty: none, not even one that the template would write
        by itself; None: as the template has it.

        Raises UserError for a template that fails, or takes no system message.
        """
        return list(self._apply(self._messages(turns, system), return_dict=True)["input_ids"])

    def text(self, turns: Sequence[str], system: str | None = None) -> str:
        """The same as text."""
        return str(self._apply(self._messages(turns, system), tokenize=False))

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
            raise UserError(f"{self._where} leaves the user's text out: name another --template")

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

    def _messages(self, turns: Sequence[str], system: str | None) -> list[dict[str, str]]:
        roles = ("user", "assistant")
        return [
            *self._system(system),
            *({"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)),
        ]

    def _system(self, text: str | None) -> list[dict[str, str]]:
        """The system message, as far as there must be one. Raises UserError where it would not
        stand in the prompt."""
        if text is None:
            return []
        if not text.strip():
            return [_system_message("")] if self._regard.own else []
        if self._regard.refusal:
            raise UserError(
                f"{self._where} takes no system message ({self._regard.refusal}): say it in the "
                "prompt, or name another --template"
            )
        return [_system_message(text)]

    @cached_property
    def _regard(self) -> _Regard:
        turn = {"role": "user", "content": FIRST}
        plain = str(self._apply([turn], tokenize=False))
        try:
            with_one = str(self._apply([_system_message(SYSTEM), turn], tokenize=False))
        except UserError as error:
            return _Regard(_short(error.__cause__ or error))
        before, found, after = with_one.partition(SYSTEM)
        if not found:
            return _Regard("it leaves it out without a word")
        head, after = plain.partition(FIRST)[0], after.partition(FIRST)[0]
        around = head.startswith(before) and head.endswith(after)
        return _Regard(own=around and len(head) > len(before) + len(after))

    def _apply(self, messages: Sequence[dict[str, str]], **options: bool) -> Any:
        try:
            return self._tokenizer.apply_chat_template(
                list(messages),
                add_generation_prompt=True,
                tokenizer_bos=self._bos,
                **self._options,
                **options,
            )
        except Exception as error:  # a template is a program: it may end in any of them
            raise UserError(
                f"{self._where} failed ({_short(error)}): mend it, name another --template, or use "
                "--raw"
            ) from error

    @cached_property
    def _bos(self) -> str:
        """The token that the tokenizer puts before any text; empty if it puts none."""
        bos = self._tokenizer.bos_token_id
        begins = bos is not None and list(self._tokenizer("").input_ids)[:1] == [bos]
        return str(self._tokenizer.bos_token) if begins else ""


def _system_message(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def _short(error: BaseException) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return textwrap.shorten(reason, 300)
