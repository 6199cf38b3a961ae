"""Many clients at a real server, some of which go away: a small form of `benchmarks/server.py`."""

import asyncio
import urllib.request

import psutil
from serving import Server

from benchmarks.server_load import alone, load

PROMPTS = ["Name three rivers.", "What is a rose?", "Count to nine."]


class Watched:
    """A server of the tests, as the benchmark wants it."""

    def __init__(self, server: Server) -> None:
        assert server.key is not None
        self.key, self.port = server.key, int(server.url.rpartition(":")[2])
        self._server = server

    @property
    def fault(self) -> str:
        said = self._server.process.err
        return said if "Traceback" in said else ""

    def processes(self) -> list[psutil.Process]:
        *stages, me = self._server.process.family()
        return [me, *stages]

    def get(self, path: str) -> str:
        request = urllib.request.Request(self._server.url + path)
        request.add_header("authorization", f"Bearer {self.key}")
        with urllib.request.urlopen(request, timeout=60) as response:
            return str(response.read().decode())


def test_all_who_stay_are_answered_as_if_they_were_alone_and_nothing_is_left(
    server: Server,
) -> None:
    async def scenario() -> None:
        watched = Watched(server)
        assert "gardener_num_requests_running{" in watched.get("/metrics")
        right = await alone(watched, PROMPTS, 10)
        found = await load(watched, right, clients=4, most=16)
        assert not found.faults
        assert (len(found.heard), found.left) == (12, 4)
        assert not found.remains

    asyncio.run(scenario())
