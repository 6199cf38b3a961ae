"""Where the settings of a server come from."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gardener.cli import main, serve
from gardener.rings.settings import RingSettings
from gardener.serve import server
from gardener.serve.settings import ServeSettings


def served(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[ServeSettings, RingSettings]:
    """What `gardener serve` would serve, and which ring."""
    found: list[Any] = []

    async def note(*given: Any) -> None:
        found.append(given)

    monkeypatch.setattr(server, "serve", note)
    monkeypatch.setattr(serve, "run", lambda main, patience: asyncio.run(main))
    monkeypatch.setattr(serve, "begin_logs", lambda *_: None)
    command, bound, _ = main.app.parse_args(
        ["serve", *words], exit_on_error=False, print_error=False
    )
    command(*bound.args, **bound.kwargs)
    return found[0][:2]  # type: ignore[no-any-return]


def test_a_server_is_for_this_machine_and_keeps_what_it_has_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, ring = served(monkeypatch, "--local", "2")
    assert (settings.host, settings.port, settings.api_key) == ("127.0.0.1", 8000, None)
    assert settings.page
    assert ring.keep_prefixes
    assert settings.model_name(ring) == "smollm2-135m"


def test_the_command_line_the_environment_and_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "g.toml"
    file.write_text(
        '[serve]\nlocal = 2\nhost = "0.0.0.0"\nport = 1\nqueue = 3\nno-page = true\n'
        'cors = "https://a.example, https://b.example"\nmax-requests = 7\nserved-name = "m"\n'
    )
    monkeypatch.setenv("GARDENER_CONFIG", str(file))
    monkeypatch.setenv("GARDENER_API_KEY", "a-key")
    monkeypatch.setenv("GARDENER_HTTP_PORT", "2")
    monkeypatch.setenv("GARDENER_PORT", "tcp://10.0.0.1:80")  # as Kubernetes has it
    settings, ring = served(monkeypatch, "--queue", "4", "--rows", "5", "--policy", "plain")
    assert (settings.host, settings.port, settings.api_key) == ("0.0.0.0", 2, "a-key")
    assert (settings.queue, settings.page, settings.name) == (4, False, "m")
    assert settings.cors == ("https://a.example", "https://b.example")
    assert (settings.bounds.rows, settings.policy) == (5, "plain")
    assert (ring.local, ring.max_requests, ring.policies) == (2, 7, ("plain",))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("org/name", "org/name"),
        ("/models/vicuna-7b.Q4_0.gguf", "vicuna-7b.Q4_0"),
        ("smollm2-135m", "smollm2-135m"),
    ],
)
def test_a_model_is_called_by_its_name(model: str, name: str) -> None:
    assert ServeSettings().model_name(RingSettings(local=1, model=model)) == name


def test_a_folder_is_called_by_its_last_name(tmp_path: Path) -> None:
    (tmp_path / "vicuna-7b").mkdir()
    ring = RingSettings(local=1, model=str(tmp_path / "vicuna-7b"))
    assert ServeSettings().model_name(ring) == "vicuna-7b"
    assert ServeSettings(name="mine").model_name(ring) == "mine"
