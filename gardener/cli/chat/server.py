"""A server that answers: any that has OpenAI's interface."""

from collections.abc import AsyncGenerator, Sequence
from time import monotonic
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import msgspec

from gardener.cli.chat.dialogue import ChatMessage
from gardener.cli.chat.knobs import SAMPLED, Knobs
from gardener.cli.chat.source import RETRY, Part, ServerError, TurnFigures, nothing
from gardener.errors import UserError
from gardener.runtime.wording import printable

CONNECT = 10.0
"""Seconds for a connection to stand."""

SILENCE = 600.0
"""Seconds without a byte, of a long prompt for instance, after which a server is given up."""

LONGEST = 400
"""Characters of what a server says of an error that are shown."""

OURS = "gardener"
"""Whose models servers say that they have, which know our own fields; others may refuse those."""

LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


class ServerSource:
    """Asks one server, with `async with`."""

    def __init__(self, url: str, key: str | None, model: str | None) -> None:
        """`model`: None takes the first one there. Raises UserError for a URL that is none.
        `tells`: it says of each text whether it had been guessed."""
        self._base, self._wanted = base_of(url), model
        self.tells = False
        self.trouble = ""  # nobody asks a server between two questions
        self.changed = nothing
        self.model = model or ""
        self.context: int | None = None
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        timeout = httpx2.Timeout(SILENCE, connect=CONNECT)
        self._client = httpx2.AsyncClient(headers=headers, timeout=timeout)

    @property
    def host(self) -> str:
        """Whose it is."""
        return urlsplit(self._base).netloc

    @property
    def is_open(self) -> bool:
        """Whether others on the way can read what is sent."""
        parts = urlsplit(self._base)
        return parts.scheme == "http" and parts.hostname not in LOOPBACK

    async def __aenter__(self) -> Self:
        try:
            await self._choose()
        except BaseException:
            await self._client.aclose()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    async def _choose(self) -> None:
        """Find out which model it has. Raises ServerError, and UserError if it is another one."""
        try:
            response = await self._client.get(f"{self._base}/models")
        except httpx2.HTTPError as error:
            raise self._silent(error) from error
        if response.status_code == 404 and self._wanted is not None:
            return  # not all have a list
        _check(response)
        listed = _models(_object(response.content))
        if not listed:
            raise ServerError(f"{self.host} lists no model: name one with --model")
        names = [str(each["id"]) for each in listed]
        if self._wanted is not None and self._wanted not in names:
            shown = ", ".join(printable(name) for name in names[:8])
            raise UserError(f"{self.host} has no model {self._wanted!r}: it has {shown}")
        chosen = listed[names.index(self._wanted) if self._wanted is not None else 0]
        self.model, length = str(chosen["id"]), chosen.get("max_model_len")
        self.context = length if isinstance(length, int) else None
        self.tells = chosen.get("owned_by") == OURS

    async def answer(
        self, messages: Sequence[ChatMessage], knobs: Knobs, figures: TurnFigures
    ) -> AsyncGenerator[Part]:
        """See `Source`."""
        begin = monotonic()
        body = {
            "model": self.model,
            "messages": [each.plain() for each in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"gardener_pieces": True} if self.tells else {}),
            **sent(knobs),
        }
        try:
            async with self._client.stream(
                "POST", f"{self._base}/chat/completions", json=body
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                _check(response)
                async for event in httpx2.EventSource(response):
                    if event.data == "[DONE]":
                        return
                    part = _read(_object(event.data), figures)
                    if part.text:
                        figures.came(monotonic() - begin)
                        yield part
        except httpx2.HTTPError as error:
            raise self._silent(error) from error
        if figures.finish == "error":
            raise ServerError(f"{self.host} ended the answer without a reason")

    def _silent(self, error: httpx2.HTTPError) -> ServerError:
        said = printable(str(error)) or type(error).__name__
        return ServerError(f"{self.host} does not answer ({said}): look whether the server runs")


def base_of(url: str) -> str:
    """Where the interface begins: `http://host:port/v1`, whether that is given or not. Raises
    UserError."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment:
        raise UserError(f"--url {url} is no address of a server: write it like http://host:8000")
    base = url.rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"


def sent(knobs: Knobs) -> dict[str, Any]:
    """The fields of a request: what was set, and how long the answer may be. The rest is the
    server's affair."""
    fields: dict[str, Any] = {"max_tokens": knobs.max_tokens}
    for name in sorted(knobs.given & {*SAMPLED, "ignore_eos"}):
        value = knobs[name]
        fields[name] = (
            {str(token): bias for token, bias in value} if name == "logit_bias" else value
        )
    return fields


def _check(response: httpx2.Response) -> None:
    """Raises ServerError with what the server says, unless it answers. The body of a refusal must
    have been read."""
    if response.status_code == 200:
        return
    after = response.headers.get("retry-after", "")
    out = f"/retry in {after} s" if after.isdigit() else RETRY
    if b"context_length_exceeded" in response.content:
        out = "/new begins anew"
    said = _message(response.content) or response.reason_phrase or "no reason given"
    raise ServerError(f"the server refused with {response.status_code}: {said}", out)


def _message(body: bytes) -> str:
    """What an error says, in OpenAI's envelope or as it is."""
    try:
        said = msgspec.json.decode(body)["error"]
        said = said["message"] if isinstance(said, dict) else said
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        said = body.decode(errors="replace")
    return printable(str(said))[:LONGEST]


def _object(data: bytes | str) -> dict[str, Any]:
    """Raises ServerError for what is no object."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise ServerError(
            "the server does not speak OpenAI's interface: what it sends is no object in JSON"
        )
    return found


def _models(listed: dict[str, Any]) -> list[dict[str, Any]]:
    data = listed.get("data")
    return [each for each in data if isinstance(each, dict) and "id" in each] if data else []


def _read(chunk: dict[str, Any], figures: TurnFigures) -> Part:
    """The text in a chunk. Raises ServerError if it is an error."""
    if "error" in chunk:
        said = _message(msgspec.json.encode(chunk))
        raise ServerError(f"the answer broke: {said}")
    try:
        return _take(chunk, figures)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ServerError(
            f"the server does not speak OpenAI's interface: a chunk has no such form ({error!r})"
        ) from error


def _take(chunk: dict[str, Any], figures: TurnFigures) -> Part:
    usage = chunk.get("usage") or {}
    if usage:
        figures.prompt, figures.tokens = (
            int(usage["prompt_tokens"]),
            int(usage["completion_tokens"]),
        )
        figures.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    account = chunk.get("gardener") or {}
    for name in ("accepted", "drafted", "segments", "policy", "note"):
        setattr(figures, name, account.get(name, getattr(figures, name)))
    text = ""
    for choice in chunk.get("choices") or ():
        text += (choice.get("delta") or {}).get("content") or ""
        figures.finish = choice.get("finish_reason") or figures.finish
    figures.finish = "context" if account.get("finish") == "context" else figures.finish
    figures.tokens += bool(text and not usage)  # until usage comes: one a chunk
    return Part(str(text), guessed=account.get("missed") is False)
