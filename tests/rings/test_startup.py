"""What has been imported by when: nobody waits for what is not needed yet."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from processes import Process, at, free_ports

HEAVY = (
    *("torch", "transformers", "huggingface_hub"),
    *("starlette", "uvicorn", "pydantic", "prometheus_client", "prompt_toolkit"),
)

END = f"print(*[name for name in {HEAVY} if name in sys.modules]); sys.stdout.flush(); os._exit(0)"

HELP = f"""
import os, sys
from gardener.cli import {{module}}
sys.argv = [{{argv}}]
try:
    {{module}}.main()
except SystemExit:
    {END}
"""

DIAL = f"""
import os, sys
from gardener.net import neighbours
def dial(*arguments, **more):
    {END}
neighbours.dial = dial
from gardener.cli import main
sys.argv = ["gardener", *sys.argv[1:]]
main.main()
"""

LISTEN = f"""
import os, sys
from gardener.net import listen
def serve(*arguments):
    {END}
listen.Listener._serve = serve
from gardener.cli import node
sys.argv = ["gardener-node", *sys.argv[1:]]
node.main()
"""


def imported(program: str, *options: str) -> set[str]:
    """What a program prints in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", program, *options],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("module", "argv"),
    [
        ("node", "'gardener-node', '--help'"),
        ("node", "'gardener-node', '--stage', 'x'"),
        ("main", "'gardener', '--help'"),
        ("main", "'gardener', 'generate', '--help'"),
        ("main", "'gardener', 'serve', '--help'"),
        ("main", "'gardener', 'chat', '--help'"),
        ("main", "'gardener', 'chat'"),
        ("main", "'gardener', 'eval', '--help'"),
        ("main", "'gardener', 'plan', '--help'"),
        ("main", "'gardener', 'verify', '--help'"),
    ],
)
def test_help_and_wrong_options_need_nothing_heavy(module: str, argv: str) -> None:
    assert imported(HELP.format(module=module, argv=argv)) == set()


@pytest.mark.parametrize("more", [(), ("--metrics", "0")])
def test_a_node_listens_before_it_imports_torch(more: tuple[str, ...]) -> None:
    peer, here = free_ports(2)
    place = ("--stage", "1", "--stages", "1", "--listen", at(here), "--peer", at(peer))
    assert "torch" not in imported(LISTEN, *place, *more)


@pytest.mark.parametrize("draft", ["auto", "none"])
@pytest.mark.parametrize("kind", ["llama", "llama3", "qwen3"])
def test_a_holder_dials_before_it_imports_anything_heavy(
    kind: str, draft: str, tmp_path: Path
) -> None:
    tiny.make(kind, tmp_path)
    options = ("--model", str(tmp_path), "--peer", "127.0.0.1:9", "--draft", draft)
    assert imported(DIAL, "generate", "hello", *options) == set()


def test_a_holder_with_a_shipped_head_dials_before_it_loads_it() -> None:
    assert imported(DIAL, "generate", "hello", "--peer", "127.0.0.1:9") == set()


def test_a_wrong_head_is_told_though_no_ring_is_there_yet() -> None:
    peer, here = free_ports(2)
    options = ("--peer", at(peer), "--listen", at(here), "--patience", "600")
    with Process("generate", "hello", "--head", "no/such/head", *options) as holder:
        assert holder.status() == 1
        assert holder.err.splitlines()[-1].startswith("error: there is no head no/such/head: ")
        assert "Traceback" not in holder.err
