"""Files and folders that are whole or not there at all; where one cannot be written, one sentence
says why.
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gardener.errors import UserError, reason

OUT = "choose another folder with --out"
"""What to do where the folder was the user's choice."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG)

_FROM_RUST = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust tell of an error of the system; their exceptions are of kinds of their
own."""


@contextmanager
def whole_file(path: Path, way_out: str = OUT) -> Iterator[Path]:
    """A temporary file beside `path`, of the same suffix, which becomes `path` if all goes well. On
    any error it is gone and `path` is what it was.

    Raises UserError where it cannot be written; `way_out` says what to do about it.
    """
    draft = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield draft
        os.replace(draft, path)
    except Exception as error:
        found = _of_the_system(error)
        if found is None:
            raise
        raise unwritten(path, found, way_out) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def write_text(path: Path, text: str, way_out: str = OUT) -> None:
    """Write a file in UTF-8, whole or not at all. Raises UserError."""
    with whole_file(path, way_out) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(target: Path, way_out: str = OUT) -> Iterator[Path]:
    """A temporary folder beside `target`, which becomes `target` if all goes well.

    On any error nothing is left. Whoever is second to finish the same target keeps the first one.
    Raises UserError where the disk is full or may not be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise unwritten(target, error, way_out) from error
    try:
        yield draft
        draft.chmod(0o755)
        _rename(draft, target)
    except Exception as error:
        found = _of_the_system(error, within=False)
        if found is None or found.errno not in _FULL + _REFUSED:
            raise
        raise unwritten(target, found, way_out) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _rename(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)  # an empty folder in its place is replaced
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def make_folder(folder: Path, way_out: str = OUT) -> None:
    """Have a folder in which files can be written, and try it. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"\0")
    except OSError as error:
        if error.errno in _FULL:
            raise unwritten(folder, error, way_out) from error
        raise UserError(
            f"{folder} cannot be made or written ({reason(error)}): {way_out}"
        ) from error


def check_room(folder: Path, nbytes: int, way_out: str = OUT) -> None:
    """Raise UserError if the disk of `folder` (or of its first parent that exists) is too full."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB left, but {nbytes / 1e9:.1f} GB are to be written: "
            f"make room there, or {way_out}"
        )


def _of_the_system(error: BaseException, within: bool = True) -> OSError | None:
    """What the system said of reading or writing, if this is what an error comes from. `within`:
    look also at what was being handled when it was raised, which torch's own errors replace."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError):
            return found
        if told := _FROM_RUST.search(str(found)):
            return OSError(int(told[1]), os.strerror(int(told[1])))
        found = found.__context__ if within else None
    return None


def unwritten(target: Path, error: OSError, way_out: str) -> UserError:
    """What to say where `target` could not be written because of `error`."""
    if error.errno in _FULL:
        return UserError(
            f"the disk is full: {target} was not written: make room there, or {way_out}"
        )
    return UserError(f"cannot write {target} ({reason(error)}): {way_out}")
