"""A stand-in for requests.py and responses.py until these are there."""

import time
import uuid
from collections.abc import Iterable
from typing import Any

import msgspec

from gardener.holder.session import Piece
from gardener.serve.asked import Asked


class Simple:
    def __init__(self, model: str, prompt_tokens: int, chat: bool, usage: bool) -> None:
        self.chat, self.prompt_tokens, self.usage = chat, prompt_tokens, usage
        self.text, self.tokens = "", 0
        self.base: dict[str, Any] = {
            "id": ("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex,
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def chunk(self, content: str | None, reason: str | None, role: bool = False) -> bytes:
        delta: dict[str, Any] = {"role": "assistant"} if role else {}
        if content is not None:
            delta["content"] = content
        body = {"delta": delta} if self.chat else {"text": content or ""}
        choice = {"index": 0, **body, "finish_reason": reason, "logprobs": None}
        return msgspec.json.encode({**self.base, "choices": [choice]})

    def begin(self) -> Iterable[bytes]:
        return [self.chunk("", None, role=True)] if self.chat else []

    def piece(self, piece: Piece) -> Iterable[bytes]:
        self.text += piece.text
        self.tokens += len(piece.tokens)
        return [self.chunk(piece.text, None)]

    def reason(self, asked: Asked) -> str:
        names = {"eos": "stop", "stop": "stop", "length": "length", "context": "length"}
        return names.get(asked.finish_reason or "", "error")

    def used(self, asked: Asked) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
            "prompt_tokens_details": {"cached_tokens": asked.cached_tokens},
        }

    def end(self, asked: Asked) -> Iterable[bytes]:
        chunks = [self.chunk(None, self.reason(asked))]
        if self.usage:
            chunks.append(
                msgspec.json.encode({**self.base, "choices": [], "usage": self.used(asked)})
            )
        return chunks

    def failed(self, asked: Asked) -> Iterable[bytes]:
        return [self.chunk(None, "error")]

    def whole(self, asked: Asked) -> bytes:
        body: dict[str, Any] = {"text": self.text}
        if self.chat:
            body = {"message": {"role": "assistant", "content": self.text}}
        choice = {"index": 0, **body, "finish_reason": self.reason(asked), "logprobs": None}
        base = {**self.base, "object": self.base["object"].removesuffix(".chunk")}
        return msgspec.json.encode({**base, "choices": [choice], "usage": self.used(asked)})
