"""Keeps what trials of kernels found, in the user's cache, so that a stage starts quickly.

One file of JSON. Where it is damaged, of another format or cannot be written, kernels are tried
anew. Several stages may write it at once: the last one wins, and what it overwrote is tried again.
"""

import contextlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from gardener.errors import UserError
from gardener.model.checkpoint.resolve import HOME_ELSEWHERE, home
from gardener.model.kernels.machine import fingerprint
from gardener.model.kernels.trial import Trial
from gardener.runtime.files import whole_file

FORMAT = 2
MOST = 2000
"""Trials that are kept; the oldest ones go first."""

_Count = Annotated[int, Meta(ge=1, le=4096)]


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    """A `Trial` as it comes out of a file."""

    rows: Annotated[tuple[_Count, ...], Meta(min_length=1)]
    spread: Annotated[float, Meta(ge=0, le=1e30)]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    trials: dict[str, _Kept]


class Trials:
    """What is known of kernels, of which a file keeps what it can."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Trial] = {}

    def of(self, what: str, attempt: Callable[[], Trial]) -> Trial:
        """What is known of this kernel, shape, dtype, device and number of threads; `attempt` tries
        it where nothing is."""
        key = f"{what} {fingerprint()}"
        if key not in self._known:
            kept = self._read().get(key)
            if kept is None:
                self._keep(key, attempt())
            else:
                self._known[key] = Trial(**msgspec.structs.asdict(kept))
        return self._known[key]

    def _read(self) -> dict[str, _Kept]:
        try:
            file = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError):
            return {}
        return file.trials if file.format == FORMAT else {}

    def _keep(self, key: str, trial: Trial) -> None:
        self._known[key] = trial
        trials = self._read()
        trials.pop(key, None)
        trials[key] = _Kept(trial.rows, trial.spread)
        newest = dict(list(trials.items())[-MOST:])
        whole = msgspec.json.encode(_File(FORMAT, newest))
        with contextlib.suppress(OSError, UserError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self._path, HOME_ELSEWHERE) as draft:
                draft.write_bytes(whole)


def trials() -> Trials:
    """Those of the cache folder that is set now."""
    return _in(home() / "kernels.json")


@cache
def _in(path: Path) -> Trials:
    return Trials(path)
