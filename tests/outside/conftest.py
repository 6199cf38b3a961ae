"""One real server, that programs of others ask: they know nothing of Gardener but its address.

Everything here runs in .venv-clients, and Gardener in .venv (see bin/test).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PYTHON = TESTS.parent / ".venv" / "bin" / "python"
sys.path[:0] = [str(TESTS), str(Path(__file__).parent)]

import processes  # noqa: E402
from serving import KEY, Server, serving  # noqa: E402

processes.PYTHON = str(PYTHON)

FURNISH = "import sys, pathlib, own_home; own_home.furnish(pathlib.Path(sys.argv[1]))"


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache for Gardener's processes, apart from the user's."""
    folder = tmp_path_factory.mktemp("home")
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([PYTHON, "-c", FURNISH, folder], env=environment, check=True)
    os.environ["GARDENER_HOME"] = str(folder)


@pytest.fixture(scope="session")
def server(home: None) -> Iterator[Server]:
    """Two stages of the default model, for anybody on this machine."""
    with serving("--local", "2", "--cors", "https://chat.example") as standing:
        yield standing


@pytest.fixture(scope="session")
def narrow(home: None) -> Iterator[Server]:
    """One request at a time, one that waits, and a key."""
    with serving("--local", "2", "--max-requests", "1", "--queue", "1", key=KEY) as standing:
        yield standing
