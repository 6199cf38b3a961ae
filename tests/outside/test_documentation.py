"""Everything in docs/server.md that can be run is, against a real server."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import processes
import pytest
from serving import Server

DOCUMENT = Path(__file__).parents[2] / "docs" / "server.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"
"""Where the server is in the document."""

WATCHED = (
    'curl() { command curl --silent --show-error --max-time 60 --dump-header "$HEADERS" "$@"; }'
)
"""Shell: curl as it is, but for the headers of its last response, which go to a file."""


def blocks(language: str) -> list[tuple[str, str]]:
    """What stands behind the language of each block of code, and the block."""
    return re.findall(rf"^```{language}\b *(.*)\n((?:.*\n)*?)```$", TEXT, re.MULTILINE)


def named(blocks: list[tuple[str, str]]) -> list[object]:
    return [pytest.param(*each, id=each[1].splitlines()[0][:60]) for each in blocks]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("more", "block"), named(blocks("sh")))
def test_curl(more: str, block: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """`more` is a status, if it is not 200, and `keyed` where the server is one with a key."""
    server: Server = request.getfixturevalue("narrow" if "keyed" in more else "server")
    status = next(iter(re.findall(r"\d+", more)), "200")
    lines = re.split(r"\n(?=curl )", block.strip())
    assert lines
    for line in lines:
        headers = tmp_path / "headers"
        done = subprocess.run(
            ["bash", "-euc", f"{WATCHED}\n{line.replace(ADDRESS, server.url)}"],
            env={**os.environ, "HEADERS": str(headers), "GARDENER_API_KEY": server.key or ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert headers.read_text().split()[1] == status, done.stdout
        assert done.stdout
        if '"stream": true' in line:
            assert done.stdout.endswith("data: [DONE]\n\n")
        if "Origin" in line:
            assert "access-control-allow-origin: https://chat.example" in done.stdout.lower()


@pytest.mark.parametrize(("more", "block"), named(blocks("python")))
def test_python(more: str, block: str, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    exec(block.replace(ADDRESS, server.url), {})
    assert capsys.readouterr().out.strip()


def test_its_options_are_those_of_the_command() -> None:
    program = "from gardener.cli.start import gardener; gardener()"
    done = subprocess.run(
        [processes.PYTHON, "-c", program, "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    known = set(re.findall(r"--[a-z-]+", done.stdout))
    prose = re.sub(r"^```(sh|nginx|python).*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose)) <= known
