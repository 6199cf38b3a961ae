"""A process that does as it is told: a JSON object a line, each answered with one."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

PATIENCE = 60.0
"""Seconds that it has to end."""


class Told:
    """Ends with the `with` block."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """`name`: for people. `environment`: what is added to this process's own."""
        self.name = name
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def ask(self, what: str, **how: Any) -> dict[str, Any]:
        """Its answer. Ends this program if it cannot give one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({what: how}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            line = ""
        else:
            line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"error: {self.name} ended at {what} {str(how)[:200]}")
        found = dict(json.loads(line))
        if "error" in found:
            raise SystemExit(f"error: {self.name}: {found['error']}")
        return found
