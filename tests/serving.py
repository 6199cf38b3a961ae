"""`gardener serve` as a real process: start one, wait until it is ready, know where it is."""

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError

from processes import Process

MODEL = "smollm2-135m"
KEY = "a-key-of-the-tests"


@dataclass
class Server:
    """A server that stands. `url` has no path: the clients of OpenAI are given `url + "/v1"`."""

    process: Process
    url: str
    key: str | None = None

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON."""
        return self._send(urllib.request.Request(self.url + path))

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        """Status and JSON."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())
        request.add_header("content-type", "application/json")
        return self._send(request)

    def is_ready(self) -> bool:
        return self.get("/ready")[0] == 200

    def _send(self, request: urllib.request.Request) -> tuple[int, Any]:
        if self.key is not None:
            request.add_header("authorization", f"Bearer {self.key}")
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)


@contextmanager
def serving(*options: str, key: str | None = None) -> Iterator[Server]:
    """A server with these options, `--local 2` for instance, once its ring stands."""
    keys = () if key is None else ("--api-key", key)
    with Process("serve", *options, "--port", "0", *keys) as process:
        process.heard(r"listening on \S+")
        found = re.search(r"listening on (\S+)", process.err)
        assert found is not None
        server = Server(process, found[1], key)
        process.until(server.is_ready)
        yield server
