"""What was typed before: a file in the user's data folder that nobody else can read."""

import os
from pathlib import Path

import platformdirs
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from gardener.errors import reason
from gardener.runtime.wording import Say


def history_file() -> Path:
    """Where it is."""
    chosen = os.environ.get("GARDENER_HOME")
    folder = Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("gardener"))
    return folder / "chat-history"


def history(say: Say) -> History:
    """The messages of earlier chats; only of this one where the file cannot be written, which
    `say` is told."""
    path = history_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
    except OSError as error:
        say(f"{path} cannot be written ({reason(error)}): what is typed is not kept")
        return InMemoryHistory()
    return _Kept(path, say)


class _Kept(FileHistory):
    """In a file, as long as that can be written: a full disk ends no chat."""

    def __init__(self, path: Path, say: Say) -> None:
        super().__init__(str(path))
        self._say = say
        self._full = False

    def store_string(self, string: str) -> None:
        """Add it to the file."""
        try:
            super().store_string(string)
        except OSError as error:
            if not self._full:
                why = f"{self.filename!s} cannot be written ({reason(error)})"
                self._say(f"{why}: what is typed is not kept; make room there")
            self._full = True
