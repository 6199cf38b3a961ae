"""A model on the Hugging Face hub: only the files that are needed, into the hub's own cache.

Honours `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE` and `HF_ENDPOINT`, as huggingface_hub does.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.folders import read_json
from gardener.model.checkpoint.slices import EmbeddingAndHead, Slice
from gardener.model.checkpoint.tensors import WEIGHTS, needed

# The hub's errors derive from those of the HTTP library it uses, which changes with its version.
_TRANSPORT: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError)
_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model")
_WHOLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class Repository:
    """One repository on the Hugging Face hub; downloads land in the hub's own cache."""

    def __init__(
        self,
        repository: str,
        revision: str | None,
        option: str,
        other_ways: str,
        say: Callable[[str], None],
    ) -> None:
        """`option` is the one that named the repository, `other_ways` says what else it takes:
        these end the errors that need a way out."""
        self._repository, self._revision = repository, revision
        self._option, self._other_ways, self._say = option, other_ways, say

    def fetch(
        self, choose: Callable[[Architecture], Slice | EmbeddingAndHead | None] | None
    ) -> Path:
        """The snapshot folder with all that is needed: the whole model, or the slice that `choose`
        picks. Without weights (None) a checkpoint in one file is fetched all the same, since only
        that file names its tensors. Raises UserError."""
        folder = self._download(_SMALL_FILES)
        if not (folder / "config.json").exists():
            raise self._without("config.json")
        architecture = Architecture.read(folder)
        held = (
            choose(architecture) if choose else Slice(0, architecture.layers, architecture.layers)
        )
        for name in WEIGHTS:  # in the order in which they would be read
            here = (folder / name).exists()
            if name.endswith(".json") and here:
                return self._fetch_indexed(folder, name, held, architecture.tied)
            if not name.endswith(".json") and (here or (self._download([name]) / name).exists()):
                return folder
        raise self._without(f"weights that can be read ({', '.join(_WHOLE_WEIGHTS)})")

    def _fetch_indexed(
        self, folder: Path, index: str, held: Slice | EmbeddingAndHead | None, tied: bool
    ) -> Path:
        weight_map = read_json(folder / index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(file, str) for file in weight_map.values()
        ):
            raise UserError(
                f"{folder / index}: weight_map does not say which file holds which tensor: give "
                f"another repository with {self._option}"
            )
        files = needed(weight_map, held, tied) if held is not None else set[str]()
        missing = sorted(file for file in files if not (folder / file).exists())
        if missing:
            self._say(f"downloading {len(missing)} weight files of {self._repository}")
            self._download(missing)
        lost = [file for file in missing if not (folder / file).exists()]
        if lost:
            raise UserError(f"{lost[0]} of {self._repository} is not here: {self._way_out()}")
        return folder

    def fetch_head(self) -> Path:
        """The snapshot folder of a draft head, which is no whole model. Raises UserError."""
        folder = self._download((*_SMALL_FILES, *_WHOLE_WEIGHTS))
        if not (folder / "config.json").exists():
            raise UserError(f"{self._repository} has no config.json here: {self._way_out()}")
        return folder

    def _download(self, patterns: Sequence[str]) -> Path:
        try:
            return Path(
                huggingface_hub.snapshot_download(
                    self._repository, revision=self._revision, allow_patterns=list(patterns)
                )
            )
        except GatedRepoError as error:
            raise UserError(
                f"{self._repository} is gated: accept its terms on the hub and set HF_TOKEN"
            ) from error
        except (RepositoryNotFoundError, HFValidationError) as error:
            raise UserError(
                f"there is no {self._repository} on the hub, or HF_TOKEN may not see it; "
                f"{self._other_ways}"
            ) from error
        except RevisionNotFoundError as error:
            raise UserError(f"{self._repository} has no revision '{self._revision}'") from error
        except LocalEntryNotFoundError as error:
            raise UserError(
                f"{self._repository} is not in the hub's cache: {self._way_out()}"
            ) from error
        except _TRANSPORT as error:
            raise UserError(f"{self._repository} could not be downloaded: {error}") from error

    def _without(self, what: str) -> UserError:
        """What to say of a repository in which this is missing."""
        files = self._gguf_files()
        if files:
            return UserError(
                f"{self._repository} has its weights as GGUF, in {len(files)} files: fetch the "
                f"one that you want, say with `hf download {self._repository} {files[0]}`, and "
                f"give that file with {self._option}"
            )
        return UserError(f"{self._repository} has no {what} here: {self._way_out()}")

    def _gguf_files(self) -> list[str]:
        """The names of those in the repository, as far as the hub can be asked."""
        try:
            names = huggingface_hub.list_repo_files(self._repository, revision=self._revision)
        except _TRANSPORT:
            return []
        return sorted(name for name in names if name.endswith(".gguf"))

    def _way_out(self) -> str:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            return f"unset HF_HUB_OFFLINE to download it, or give a folder with {self._option}"
        return f"check the connection to the hub; {self._other_ways}"
