"""Finds calls of functions in an answer, in the model's own notation, whole or while it is written.

Two notations are read: that of Hermes and Qwen, `<tool_call>{"name": ..., "arguments": {...}}
</tool_call>`, anywhere and several times; and that of Llama 3, `{"name": ..., "parameters": {...}}`
at the beginning of the answer, also after `<|python_tag|>`, several separated by blanks or `;`.

What turns out to be no call is text, unchanged.
"""

import json
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum, auto

import msgspec

OPEN, CLOSE = "<tool_call>", "</tool_call>"
PYTHON = "<|python_tag|>"
OBJECT, NEXT = "{", ";"

MARKS = (OPEN, CLOSE)
"""What must be seen of an answer, though a tokenizer may call it special, which is no text."""

FIRST_KEYS = frozenset(("name", "parameters", "arguments", "type", "id"))
"""What the object of a call may begin with. Any other object is an answer, and is not held back."""

_KEY = re.compile(r'\{\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)
_JSON_SIGNS = re.compile(r'\\.|["{}]', re.DOTALL)


@dataclass(frozen=True)
class Call:
    """A function that the model wants called. `arguments` is a JSON object as text."""

    name: str
    arguments: str
    number: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}", compare=False)

    def as_object(self) -> dict[str, object]:
        """As OpenAI writes it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.number, "type": "function", "function": function}


class _Place(Enum):
    """Where the reader is, outside an object."""

    START = auto()  # nothing but blanks was read
    TEXT = auto()
    TAG = auto()  # behind <tool_call>
    TAGGED = auto()  # behind a call in <tool_call>
    CLOSED = auto()  # behind </tool_call>
    PYTHON = auto()  # behind <|python_tag|>
    BARE = auto()  # behind a call without a tag


_MAY_FOLLOW = {
    _Place.START: (OPEN, PYTHON, OBJECT),
    _Place.TAG: (OBJECT,),
    _Place.TAGGED: (CLOSE, OPEN, OBJECT),
    _Place.CLOSED: (OPEN,),
    _Place.PYTHON: (OBJECT,),
    _Place.BARE: (OPEN, PYTHON, NEXT, OBJECT),
}
"""What is no text, after blanks. Anything else is."""

_LEADS_TO = {OPEN: _Place.TAG, PYTHON: _Place.PYTHON, CLOSE: _Place.CLOSED, NEXT: _Place.BARE}
_BEHIND_A_CALL = (_Place.TAGGED, _Place.CLOSED, _Place.BARE)


class CallReader:
    """Give it the text of an answer with `push`, in any pieces, then `end`. Both return the text
    that is certain to be none of a call, and the calls that are complete."""

    def __init__(self, tools: Collection[str], most: int | None = None) -> None:
        """`tools`: names of functions that may be called. One without a tag must be of these, since
        any JSON may be an answer. `most`: calls after which the rest is dropped."""
        self._tools, self._most = frozenset(tools), most
        self._place = _Place.START
        self._held = ""  # not decided yet
        self._at = 0  # as far as this was read, outside an object
        self._object: _Object | None = None  # that begins there
        self._text: list[str] = []
        self._calls: list[Call] = []
        self.count = 0  # of calls so far

    def push(self, text: str) -> tuple[str, list[Call]]:
        """The next text."""
        self._held += text
        while self._step():
            pass
        return self._taken()

    def end(self) -> tuple[str, list[Call]]:
        """No more comes: what may have been the beginning of a call is text."""
        while self._step() or self._give_up():
            pass
        return self._taken()

    @property
    def _full(self) -> bool:
        return self._most is not None and self.count >= self._most

    def _taken(self) -> tuple[str, list[Call]]:
        text, calls = "".join(self._text), self._calls
        self._text, self._calls = [], []
        return text, calls

    def _step(self) -> bool:
        """Decide about some of what is held; false if more is needed for it."""
        if self._full:
            self._held, self._at = "", 0
            return False
        if self._object is not None:
            return self._read_object(self._object)
        if self._place is _Place.TEXT:
            return self._read_text()
        return self._read_mark(self._place)

    def _read_mark(self, place: _Place) -> bool:
        rest = self._held[self._at :].lstrip()
        if not rest:
            return False
        for mark in _MAY_FOLLOW[place]:
            if rest.startswith(mark):
                self._at = len(self._held) - len(rest)
                self._follow(mark)
                return True
            if mark.startswith(rest):
                return False
        return self._is_text()

    def _follow(self, mark: str) -> None:
        """A mark begins where the reader is."""
        if mark == OBJECT:
            self._object = _Object(self._at)
            return
        self._at += len(mark)
        self._place = _LEADS_TO[mark]
        if mark == CLOSE:
            self._drop(self._at)

    def _read_object(self, found: "_Object") -> bool:
        bare = self._place in (_Place.START, _Place.PYTHON, _Place.BARE)
        key = _KEY.match(self._held, found.begin) if bare else None
        if key is not None and key[1] not in FIRST_KEYS:
            return self._no_call(found)
        end = found.end(self._held)
        if end is None:
            return False
        call = as_call(self._held[found.begin : end])
        if call is None or (bare and call.name not in self._tools):
            return self._no_call(found)
        self._calls.append(call)
        self.count += 1
        self._object = None
        self._place = _Place.BARE if bare else _Place.TAGGED
        self._drop(end)
        return True

    def _no_call(self, found: "_Object") -> bool:
        self._object = None
        self._at = found.begin + len(OBJECT)
        return self._is_text()

    def _is_text(self) -> bool:
        """What was read is text after all, and what follows is."""
        self._text.append(self._held[: self._at])
        self._drop(self._at)
        self._place = _Place.TEXT
        return True

    def _read_text(self) -> bool:
        """Blanks before a mark belong to it."""
        before, mark, _ = self._held.partition(OPEN)
        if mark:
            self._text.append(before.rstrip())
            self._drop(len(before.rstrip()))
            self._place, self._at = _Place.CLOSED, 0  # which reads blanks and the mark
            return True
        sure = len(self._held[: len(self._held) - _begun(self._held)].rstrip())
        self._text.append(self._held[:sure])
        self._drop(sure)
        return False

    def _give_up(self) -> bool:
        """No more comes. False if there is nothing left to decide."""
        if self._full or not self._held:
            return False
        if self._object is not None:
            return self._no_call(self._object)
        if self._place in _BEHIND_A_CALL and not self._held[self._at :].strip():
            self._drop(len(self._held))  # blanks behind a call
        elif self._place is _Place.TEXT:
            self._text.append(self._held)
            self._drop(len(self._held))
        else:
            self._is_text()
        return bool(self._held)

    def _drop(self, end: int) -> None:
        self._held, self._at = self._held[end:], 0


class _Object:
    """Looks for the end of a JSON object in a growing text, each character once."""

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self._at, self._depth, self._quoted = begin, 0, False

    def end(self, text: str) -> int | None:
        """Where it ends, if it does."""
        for sign in _JSON_SIGNS.finditer(text, self._at):
            self._at = sign.end()
            if sign[0] == '"':
                self._quoted = not self._quoted
            elif not self._quoted and sign[0] in "{}":
                self._depth += 1 if sign[0] == "{" else -1
                if not self._depth:
                    return self._at
        return None


def _begun(text: str) -> int:
    """Length of the longest end of the text with which a mark may begin."""
    lengths = range(min(len(OPEN) - 1, len(text)), 0, -1)
    return next((length for length in lengths if OPEN.startswith(text[-length:])), 0)


def as_call(text: str) -> Call | None:
    """The call that a JSON object says; None if it says none."""
    try:
        said = msgspec.json.decode(text)
        name, arguments = said.get("name"), said.get("arguments", said.get("parameters", {}))
        if isinstance(arguments, str):  # as JSON once more
            arguments = msgspec.json.decode(arguments)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(name, str) and name and isinstance(arguments, dict)):
        return None
    return Call(name, json.dumps(arguments, ensure_ascii=False))
