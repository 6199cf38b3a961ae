"""Makes the helpers beside the tests importable, and gives the tests a cache of their own."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from serving import Server

collect_ignore = ["outside", "cuda"]  # in environments of their own: see bin/test, bin/test-cuda

sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported: what they ask for the cache is asked of this one."""
    from own_home import furnish  # late: it takes the package, and the line above

    folder = tempfile.mkdtemp(prefix="gardener-tests-")
    config.add_cleanup(partial(shutil.rmtree, folder, ignore_errors=True))
    furnish(Path(folder))


@pytest.fixture(scope="session")
def server() -> "Iterator[Server]":
    """A real server for all tests that need no other: two stages of the default model on this
    machine, behind a key."""
    from serving import KEY, serving

    with serving("--local", "2", key=KEY) as standing:
        yield standing


@pytest.fixture(scope="module")
def browser() -> "Iterator[Any]":
    """A browser for tests that look at the page; they are skipped where there is none. Its driver
    keeps an event loop in this thread, where tests of other modules want their own."""
    from browsing import launched

    yield from launched()
