"""What was typed is kept in a file, as far as that can be written."""

from pathlib import Path

import pytest

from gardener.cli.chat.history import history


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_ends_no_chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path))
    said: list[str] = []
    kept = history(said.append)
    kept.append_string("first")
    assert "first" in (tmp_path / "chat-history").read_text()
    kept.filename = "/dev/full"  # type: ignore[attr-defined]
    kept.append_string("second")
    kept.append_string("third")
    (line,) = said  # once
    assert line.startswith("/dev/full cannot be written (no space left on device): what is typed")
    assert kept.get_strings()[-1:] == ["third"]  # in this chat it is there


def test_a_folder_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "file"))
    said: list[str] = []
    history(said.append).append_string("first")
    (line,) = said
    assert "cannot be written" in line
