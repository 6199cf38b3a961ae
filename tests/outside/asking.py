"""What several of these tests ask, and how they look at the server from outside."""

import re
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from openai import OpenAI
from serving import MODEL, Server

QUESTION = "Why is the sky blue?"
WITHOUT_END: dict[str, Any] = {"ignore_eos": True}
"""A field of ours: the answer goes on until it has all its tokens."""


def client_of(server: Server, key: str | None = None) -> OpenAI:
    """The official client; it tries nothing twice."""
    return OpenAI(base_url=f"{server.url}/v1", api_key=key or server.key or "none", max_retries=0)


def chat(content: Any = QUESTION, **more: Any) -> dict[str, Any]:
    """Arguments of a request: one question, the likeliest answer, short unless told otherwise."""
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL, "messages": messages, "max_tokens": 24, "temperature": 0, **more}


def running(server: Server) -> int:
    """Requests that have slots now, as `/metrics` has it."""
    request = urllib.request.Request(f"{server.url}/metrics")
    if server.key is not None:
        request.add_header("authorization", f"Bearer {server.key}")
    with urllib.request.urlopen(request, timeout=10) as response:
        text = response.read().decode()
    (count,) = re.findall(r"^gardener_num_requests_running(?:{[^}]*})? (\S+)", text, re.MULTILINE)
    return int(float(count))


def becomes_true(wanted: Callable[[], object], seconds: float) -> bool:
    """Whether it is so within this time."""
    end = time.monotonic() + seconds
    while not wanted():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
