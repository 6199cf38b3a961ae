"""What is sent back: objects as OpenAI writes them, whole and in chunks, as JSON.

Beside OpenAI's fields there is `gardener`, see `accounts.account`: at the top of a whole object,
and in the last chunk that has a choice. Chunks with text have one too, if that was asked for:
`{"missed": ..., "tokens": ...}`, whether the last token of the text had not been guessed, and the
tokens of the answer until now.
"""

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from tokenizers import Tokenizer

from gardener.holder.piece import Piece
from gardener.holder.splitter import Splitter
from gardener.serve.accounts import Standing, account, usage
from gardener.serve.asked import Asked
from gardener.serve.question import Question
from gardener.serve.token_logprobs import TextOffsets, Told, ToldTokens, of_chat, of_text
from gardener.serve.tool_calls import Call, CallReader

_encode = msgspec.json.Encoder().encode

FINISHES = {"eos": "stop", "stop": "stop", "length": "length", "context": "length"}
"""How a session ended, and what OpenAI calls it. All else is `BROKEN`."""

BROKEN = "error"
"""The finish reason of an answer that did not come to its end."""


@dataclass(frozen=True)
class Reply:
    """What is known of an answer before it is written. `usage`: if it is streamed, it ends with
    what it cost. `pieces`: its chunks tell what had been guessed."""

    model: str
    question: Question
    standing: Standing
    tokenizer: Tokenizer
    usage: bool = False
    pieces: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    number: str = field(default_factory=lambda: secrets.token_hex(12))

    def told(self) -> ToldTokens | None:
        """The tokens whose log probabilities are told; None where nobody wants them."""
        question = self.question
        if question.logprobs is None:
            return None
        return ToldTokens(TextOffsets(self.tokenizer, question.tokens, question.shown))


class ChatForm:
    """A turn of a chat, see `answering.Form`. Calls of tools are taken out of the text."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        question = reply.question
        self._reader = CallReader(question.tools, question.most_calls) if question.tools else None
        self._parts: list[str] = []
        self._calls: list[Call] = []
        self._tokens = 0
        self._told = reply.told()
        self._logprobs: list[Any] = []
        self._chunks = _Chunks(reply, f"chatcmpl-{reply.number}", "chat.completion.chunk")
        self._content = self._chunks.around("delta", "content")
        self._splitter: Splitter | None = None
        if reply.pieces:
            self._splitter = Splitter(reply.tokenizer, question.tokens, question.shown)

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._parts)

    def begin(self) -> Iterable[bytes]:
        """The role."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return (self._chunks.chunk(delta=delta),)

    def piece(self, piece: Piece) -> Iterable[bytes]:
        """What can be told of this piece."""
        self._tokens += len(piece.tokens)
        said: list[Any] = []
        if self._told is not None:
            said = of_chat(self._reply.tokenizer, self._told.push(piece))
        text, calls = (piece.text, []) if self._reader is None else self._reader.push(piece.text)
        parts = () if self._splitter is None else self._splitter.parts(piece)
        if parts and text == piece.text and not calls:
            return self._parted(parts, said)
        return self._written(text, calls, said)

    def end(self, asked: Asked) -> Iterable[bytes]:
        """What was held back, the finish reason, and what it cost."""
        yield from self._rest(asked)
        yield from self._chunks.last(asked, self._tokens, self._reason(asked), delta={})

    def failed(self, asked: Asked) -> Iterable[bytes]:
        """What was held back, and that it broke."""
        yield from self._rest(asked)
        yield self._chunks.finish(asked, BROKEN, delta={})

    def whole(self, asked: Asked) -> bytes:
        """The object of an answer that is not streamed."""
        self._rest(asked)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.text if self.text or not self._calls else None,
            "refusal": None,
        }
        if self._calls:
            message["tool_calls"] = [call.as_object() for call in self._calls]
        asked_for = self._reply.question.logprobs is not None
        choice = {
            "index": 0,
            "message": message,
            "logprobs": {"content": self._logprobs, "refusal": None} if asked_for else None,
            "finish_reason": self._reason(asked),
        }
        return self._chunks.whole(asked, "chat.completion", choice, self._tokens)

    def _rest(self, asked: Asked) -> Iterable[bytes]:
        text, calls = ("", []) if self._reader is None else self._reader.end()
        left = [] if self._told is None else self._told.rest(asked.finish_reason)
        return self._written(text, calls, of_chat(self._reply.tokenizer, left))

    def _written(self, text: str, calls: list[Call], said: list[Any]) -> list[bytes]:
        """Chunks: the text, with log probabilities, and a chunk for each call."""
        made = []
        self._logprobs += said
        if text or said:
            self._parts.append(text)
            made.append(self._said(text, said))
        for call in calls:
            delta = {"tool_calls": [{"index": len(self._calls), **call.as_object()}]}
            made.append(self._chunks.chunk(delta=delta))
            self._calls.append(call)
        return made

    def _parted(self, parts: Sequence[tuple[str, bool]], said: list[Any]) -> list[bytes]:
        """Chunks with the text, each of which says whether it had been guessed. With log
        probabilities it is one chunk, since those are of all tokens."""
        self._parts += [text for text, _ in parts]
        self._logprobs += said
        if said:
            text, guessed = "".join(text for text, _ in parts), parts[-1][1]
            return [self._chunk(text, said, missed=not guessed)]
        return [self._chunk(text, missed=not guessed) for text, guessed in parts]

    def _said(self, text: str, said: list[Any]) -> bytes:
        return self._chunk(text, said) if said else _encode(text).join(self._content)

    def _chunk(self, text: str, said: Sequence[Any] = (), missed: bool | None = None) -> bytes:
        told = None if missed is None else {"missed": missed, "tokens": self._tokens}
        logprobs = {"content": said, "refusal": None} if said else None
        return self._chunks.chunk(delta={"content": text}, logprobs=logprobs, told=told)

    def _reason(self, asked: Asked) -> str:
        reason = finish(asked)
        return "tool_calls" if self._calls and reason == "stop" else reason


class CompletionForm:
    """A text that goes on, see `answering.Form`."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._parts: list[str] = []
        self._tokens = 0
        self._told = reply.told()
        self._logprobs: dict[str, list[Any]] = {}
        self._chunks = _Chunks(reply, f"cmpl-{reply.number}", "text_completion")
        self._content = self._chunks.around("text")

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._parts)

    def begin(self) -> Iterable[bytes]:
        """Nothing: there is no role."""
        return ()

    def piece(self, piece: Piece) -> Iterable[bytes]:
        """The text of this piece, if it has any."""
        self._tokens += len(piece.tokens)
        return self._written(piece.text, [] if self._told is None else self._told.push(piece))

    def end(self, asked: Asked) -> Iterable[bytes]:
        """What was held back, the finish reason, and what it cost."""
        yield from self._rest(asked)
        yield from self._chunks.last(asked, self._tokens, finish(asked), text="")

    def failed(self, asked: Asked) -> Iterable[bytes]:
        """What was held back, and that it broke."""
        yield from self._rest(asked)
        yield self._chunks.finish(asked, BROKEN, text="")

    def _rest(self, asked: Asked) -> Iterable[bytes]:
        return self._written("", [] if self._told is None else self._told.rest(asked.finish_reason))

    def _written(self, text: str, told: Sequence[Told]) -> Iterable[bytes]:
        """A chunk with this text and log probabilities, if there are any."""
        self._parts.append(text)
        if not told:
            return (_encode(text).join(self._content),) if text else ()
        said = of_text(self._reply.tokenizer, told)
        for name, values in said.items():
            self._logprobs.setdefault(name, []).extend(values)
        return (self._chunks.chunk(text=text, logprobs=said),)

    def whole(self, asked: Asked) -> bytes:
        """The object of an answer that is not streamed."""
        self._rest(asked)
        asked_for = self._reply.question.logprobs is not None
        none: dict[str, list[Any]] = {
            name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        }
        choice = {
            "index": 0,
            "text": self.text,
            "logprobs": none | self._logprobs if asked_for else None,
            "finish_reason": finish(asked),
        }
        return self._chunks.whole(asked, "text_completion", choice, self._tokens)


def finish(asked: Asked) -> str:
    """Why an answer ended, as OpenAI says it."""
    return FINISHES.get(asked.finish_reason or "", BROKEN)


class _Chunks:
    """Writes the objects of one answer."""

    def __init__(self, reply: Reply, number: str, kind: str) -> None:
        self._reply = reply
        self._head = {
            "id": number,
            "object": kind,
            "created": reply.created,
            "model": reply.model,
            "system_fingerprint": reply.standing.fingerprint,
        }
        self._tail: dict[str, Any] = {"usage": None} if reply.usage else {}

    def chunk(
        self, *, logprobs: Any = None, told: dict[str, Any] | None = None, **content: Any
    ) -> bytes:
        """One chunk with a choice; `told`: its `gardener`, if it has one."""
        made = self._object(content, logprobs, None)
        return _encode(made if told is None else made | {"gardener": told})

    def around(self, *path: str) -> tuple[bytes, bytes]:
        """What stands before and after the text at this place of a choice, in a chunk that has
        nothing else: most chunks are made so, and quickly."""
        mark = f"{secrets.token_hex(16)}"
        content: Any = mark
        for name in reversed(path):
            content = {name: content}
        before, _, after = self.chunk(**content).partition(_encode(mark))
        return before, after

    def finish(self, asked: Asked, reason: str, **content: Any) -> bytes:
        """The last chunk with a choice."""
        made = self._object(content, None, reason)
        return _encode(made | {"gardener": self._account(asked)})

    def last(self, asked: Asked, tokens: int, reason: str, **content: Any) -> Iterable[bytes]:
        """The chunks at the end."""
        yield self.finish(asked, reason, **content)
        if self._reply.usage:
            yield _encode({**self._head, "choices": [], "usage": usage(asked, tokens)})

    def whole(self, asked: Asked, kind: str, choice: dict[str, Any], tokens: int) -> bytes:
        """The object of an answer that is not streamed."""
        return _encode(
            {
                **self._head,
                "object": kind,
                "choices": [choice],
                "usage": usage(asked, tokens),
                "gardener": self._account(asked),
            }
        )

    def _account(self, asked: Asked) -> dict[str, Any]:
        return account(asked, self._reply.standing, self._reply.question.note)

    def _object(
        self, content: dict[str, Any], logprobs: Any, finish_reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": 0, **content, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._head, "choices": [choice], **self._tail}
