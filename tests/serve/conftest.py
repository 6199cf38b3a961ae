"""One real server for all tests that need no other."""

from collections.abc import Iterator

import pytest
from serving import KEY, Server, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Two stages of the default model on this machine, behind a key."""
    with serving("--local", "2", key=KEY) as standing:
        yield standing
