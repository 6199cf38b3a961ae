"""`gardener chat --url` asks the real server."""

import os
import subprocess
import sys

from serving import MODEL, Server


def test_a_chat_with_a_real_server(server: Server) -> None:
    assert server.key is not None
    settings = ["/set max_tokens 8", "/set temperature 0"]
    turns = ["Tell me a story about a colour.", "Tell me another one.", "/stats", "/retry"]
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from gardener.cli.start import gardener; gardener()"),
            *("chat", "--url", server.url, "--model", MODEL),
        ],
        input="\n".join([*settings, *turns]),
        env={**os.environ, "GARDENER_API_KEY": server.key},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("ended after 8 tokens") == 3
    assert "of them cached" in done.stderr
    assert "/8192 tokens" in done.stderr
    assert "policy alternating" in done.stderr
