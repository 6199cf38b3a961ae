"""HTTP requests, and how they are spoilt."""

import json
import random
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

CHAT = {
    "model": "tiny",
    "messages": [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "how are you?"},
    ],
    "max_tokens": 2,
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.7,
    "top_p": 0.9,
    "seed": 7,
    "stop": ["\n\n", "END"],
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"5": 1.5, "6": -100},
    "tools": [{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}],
    "tool_choice": "auto",
    "response_format": {"type": "text"},
    "user": "somebody",
}
COMPLETION = {
    "model": "tiny",
    "prompt": "once upon a time",
    "max_tokens": 2,
    "temperature": 0,
    "stream": False,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "stop_token_ids": [3],
    "min_tokens": 1,
    "logprobs": 1,
    "top_k": 5,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "policy": "gardener",
}
ODDITIES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 255, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, 0.5, -0.0),
    *(1e308, float("nan"), float("inf"), "", "x", "\x00", "\ud800", "\u202e", "a" * 5000, "1e9"),
    *([], {}, [[]], [None], {"": 0}, ["a"] * 300, {"type": "text"}, [1, 2, 3], [-1], [10**20]),
)
PATHS = (
    *("/v1/chat/completions",) * 6,
    *("/v1/completions",) * 6,
    *("/", "/health", "/ready", "/version", "/metrics", "/v1/models", "/v1/models/tiny"),
    *("/page/page.js", "/page/../../etc/passwd", "/page/%2e%2e/x", "/ring/status", "/nothing"),
    *(
        "/v1/models/%00",
        "//",
        "/v1/chat/completions/",
        "*",
        "http://elsewhere/",
        "/%ff%fe",
        "/?a=%",
    ),
)
METHODS = (
    "GET",
    "POST",
    "POST",
    "HEAD",
    "OPTIONS",
    "PUT",
    "DELETE",
    "PATCH",
    "TRACE",
    "BREW",
    "get",
)
HEADERS = (
    *("content-type: text/plain", "content-type: application/json; charset=utf-16"),
    *("accept: application/openmetrics-text", "accept: */*;q=x", "authorization: Bearer"),
    *("authorization: Basic \u00fc", "origin: null", "origin: http://evil.example", "host: evil"),
    *("expect: 100-continue", "expect: 200-ok", "upgrade: websocket", "connection: upgrade"),
    *("x-request-id: a b", "x-request-id: " + "i" * 300, "range: bytes=0-1", "cookie: a=b"),
    *("content-encoding: gzip", "te: trailers", "x: " + "y" * 3000, ": empty", "no colon"),
    *("if-none-match: *", "accept-encoding: br", "transfer-encoding: gzip", "content-length: x"),
    *("content-length: 0", "content-length: 99999999999", "content-length: -1", " folded: yes"),
)


@dataclass(frozen=True)
class Sent:
    """What goes to the server. `whole`: it is a request that has to be answered."""

    data: bytes
    method: str
    whole: bool


def spoilt(chance: random.Random) -> Sent:
    """A request with something wrong, or a sound one."""
    made = _one(chance)
    if chance.random() < 0.1:  # one after the other on one connection
        first = _one(chance, keep=True)
        if first.whole and made.whole and "HEAD" not in (first.method, made.method):
            return Sent(first.data + made.data, first.method, False)
    if chance.random() < 0.15:
        return Sent(_damaged(chance, made.data), made.method, False)
    return made


def _one(chance: random.Random, keep: bool = False) -> Sent:
    path, method = chance.choice(PATHS), "GET"
    body = b""
    if "completions" in path:
        method, body = "POST", _body(chance, CHAT if "chat" in path else COMPLETION)
    if chance.random() < 0.1:
        method = chance.choice(METHODS)
    lines = [f"{method} {path} HTTP/1.1", "host: localhost"]
    if not keep:
        lines.append("connection: close")
    whole = True
    if chance.random() < 0.25:
        lines.insert(chance.randrange(1, len(lines) + 1), chance.choice(HEADERS))
        whole = False
    if body or method == "POST":
        framing, body = _framed(chance, body)
        lines += framing
        whole = whole and len(framing) == 1
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return Sent(head + body, method, whole)


def _framed(chance: random.Random, body: bytes) -> tuple[list[str], bytes]:
    """Headers that say where the body ends, mostly one that is true, and the body."""
    match chance.randrange(12):
        case 0:
            at = chance.randrange(len(body) + 1)
            parts = [part for part in (body[:at], body[at:]) if part]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            return ["transfer-encoding: chunked"], chunks + b"0\r\n\r\n"
        case 1:
            size = chance.choice((b"-1", b"fffffffffffffffff", b"g", b"", b"5;a=b", b"0"))
            chunk = size + b"\r\n" + body + b"\r\n0\r\n\r\n"
            return ["transfer-encoding: chunked", "x-odd: yes"], chunk
        case 2:
            length = chance.choice((len(body) - 1, len(body) + 1, 0, 2**23 + 1, 2**63))
            return [f"content-length: {length}", "x-odd: yes"], body
        case 3:
            both = [f"content-length: {len(body)}", "transfer-encoding: chunked"]
            return both, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return [f"content-length: {len(body)}"], body


def _body(chance: random.Random, base: dict[str, Any]) -> bytes:
    """JSON that asks for something odd, or something like JSON."""
    asked = {name: value for name, value in base.items() if chance.random() < 0.6}
    asked.update((name, base[name]) for name in ("model", "max_tokens"))
    asked = json.loads(json.dumps(asked))
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        _change(chance, asked)
    text = json.dumps(asked).encode()
    if chance.random() < 0.1:
        text = chance.choice((b"[" * 3000, b"", b"null", b"\xff\xfe", b'{"a":1,"a":2}', text[:-1]))
    return text


def _change(chance: random.Random, asked: Any) -> None:
    """Change one place of a tree of objects and lists."""
    parent, key = asked, None
    while True:
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        if not keys:
            return
        key = chance.choice(keys)
        if not isinstance(parent[key], dict | list) or chance.random() < 0.3:
            break
        parent = parent[key]
    match chance.randrange(4):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[chance.choice(("x", "", "n", "echo", "best_of", "\u0000"))] = parent[key]
        case _:
            parent[key] = deepcopy(chance.choice(ODDITIES))


def _damaged(chance: random.Random, data: bytes) -> bytes:
    """Bytes changed, cut out, put in."""
    spoilt = bytearray(data)
    for _ in range(chance.choice((1, 2, 5))):
        at = chance.randrange(len(spoilt) + 1)
        match chance.randrange(4):
            case 0:
                del spoilt[at:]
            case 1:
                spoilt[at:at] = chance.choice((b"\r\n", b"\n", b"\x00", b"\xff", b" ", b"\r"))
            case 2:
                spoilt[at : at + 1] = chance.randbytes(1)
            case _:
                del spoilt[at : at + chance.randrange(1, 9)]
    return bytes(spoilt)
