"""The client of OpenAI for JavaScript."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from serving import MODEL, Server

CLIENT = "openai@6.49.0"
PROGRAM = Path(__file__).with_name("openai_npm.mjs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the client is installed."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed, so there is nothing to run the client with")
    made = tmp_path_factory.mktemp("npm")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", CLIENT]
    done = subprocess.run(
        command, cwd=made, capture_output=True, text=True, timeout=80, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"npm cannot fetch {CLIENT} here: {done.stderr.strip().splitlines()[0]}")
    return made


def test_it_reads_answers_streams_and_errors(folder: Path, server: Server) -> None:
    done = subprocess.run(
        ["node", PROGRAM, folder, server.url, MODEL],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["whole"]
    assert told["streamed"] == told["whole"]
    assert told["reasons"][-1] in {"stop", "length"}
    assert told["last"]["completion_tokens"] == told["usage"]["completion_tokens"] > 0
    assert told["error"] == {"kind": "BadRequestError", "status": 400, "param": "temperature"}
    assert told["models"] == [MODEL]
