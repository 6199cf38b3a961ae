"""A stand-in for requests.py and responses.py until these are there."""

import json
import time
import uuid
from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gardener.errors import GardenerError
from gardener.holder.session import Piece
from gardener.serve.answering import Stream, whole
from gardener.serve.asked import Asked
from gardener.serve.errors import ApiError, told
from gardener.serve.house import house_of
from gardener.serve.models import unknown_model


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


async def answer(request: Request, chat: bool) -> Response:
    house = house_of(request)
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {error}") from error
    if body.get("model") != house.model:
        raise unknown_model(str(body.get("model")), house)
    ring = house.ring()
    try:
        if chat:
            turns = [m["content"] for m in body["messages"] if m["role"] != "system"]
            systems = [m["content"] for m in body["messages"] if m["role"] == "system"]
            history = list(zip(turns[:-1:2], turns[1::2], strict=True))
            system = systems[0] if systems else None
            tokens = ring.prompter.encode(turns[-1], history=history, system=system)
        else:
            tokens = ring.prompter.encode(body["prompt"], raw=True)
        stop = body.get("stop") or ()
        most = body.get("max_completion_tokens") or body.get("max_tokens")
        asked = ring.ask_tokens(
            tokens,
            max_new_tokens=most or ring.prompter.context - len(tokens),
            stop=[stop] if isinstance(stop, str) else stop,
            policy=house.settings.policy,
            bounds=house.settings.bounds,
        )
    except GardenerError as error:
        raise told(error) from error
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    form = Simple(house.model, len(tokens), chat, usage)
    if body.get("stream"):
        return Stream(asked, form, house)
    return await whole(asked, form, house, request.receive)
