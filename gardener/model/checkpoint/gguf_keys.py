"""The metadata of a GGUF file, read key by key, so that what nobody read can be named."""

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from gardener.errors import UserError

_WITHOUT_EFFECT = re.compile(
    r"""
    general\.(?!type$|architecture$).*      # name, licence, origin, alignment (see gguf_header.py)
    | tokenizer\..*                         # see gguf_tokenizer.py
    | split\.(no|count|tensors\.count)      # see gguf_files.py
    | (quantize|imatrix|mradermacher)\..*   # how the file was made
    """,
    re.VERBOSE,
)
"""Keys that say nothing about what the model computes."""

_OF_NO_EFFECT_HERE = ("vocab_size", "rope.scaling.finetuned", "pooling_type")
"""The same within an architecture: how many tokens there are, the embedding says."""

Kind = TypeVar("Kind", int, float, str, bool)


class Keys:
    """The keys of one file. Names are given without the architecture in front of them."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        """Raises UserError if this is not the file of a model."""
        self._metadata, self._read = metadata, {"general.type", "general.architecture"}
        what = metadata.get("general.type", "model")
        if what != "model":
            raise UserError(f"its general.type is {what}, not model")
        self.architecture = str(metadata.get("general.architecture"))

    def has(self, name: str) -> bool:
        return f"{self.architecture}.{name}" in self._metadata

    def need(self, name: str, kind: type[Kind]) -> Kind:
        """Raises UserError if it is missing, or something else."""
        if not self.has(name):
            raise UserError(f"its metadata has no {self.architecture}.{name}")
        key = f"{self.architecture}.{name}"
        self._read.add(key)
        value = self._metadata[key]
        if isinstance(value, list) and value and all(each == value[0] for each in value):
            value = value[0]  # one for each layer, all the same
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UserError(f"its {key} is {value!r:.60}, which is not supported")
        return value

    def size(self, name: str, most: int = 2**31 - 1) -> int:
        """A number that something is counted with. Raises UserError."""
        value = self.need(name, int)
        if not 1 <= value <= most:
            raise UserError(f"its {self.architecture}.{name} is {value}, not from 1 to {most}")
        return value

    def get(self, name: str, kind: type[Kind], default: Kind) -> Kind:
        """The same, with a default for where it is missing."""
        return self.need(name, kind) if self.has(name) else default

    def positive(self, name: str, default: float) -> float:
        """A number that something is scaled with. Raises UserError."""
        value = self.get(name, float, default)
        if not 0 < value < math.inf:
            raise UserError(f"its {self.architecture}.{name} is {value}, not above 0")
        return value

    def expect(self, name: str, *values: object) -> None:
        """Raise UserError if this is there, and none of these values."""
        key = f"{self.architecture}.{name}"
        self._read.add(key)
        if key in self._metadata and self._metadata[key] not in values:
            raise UserError(f"its {key} is {self._metadata[key]!r:.60}, which is not supported")

    def token(self, name: str) -> int | None:
        """The id of a special token, like eos; None: the file has none."""
        value = self._metadata.get(f"tokenizer.ggml.{name}_token_id")
        return value if isinstance(value, int) else None

    def finish(self) -> None:
        """Raise UserError if there is anything that nobody read and that may matter."""
        aside = {f"{self.architecture}.{name}" for name in _OF_NO_EFFECT_HERE}
        left = [
            key
            for key in self._metadata
            if key not in self._read | aside and not _WITHOUT_EFFECT.fullmatch(key)
        ]
        if left:
            raise UserError(
                f"its metadata says {', '.join(sorted(left)[:5])}, and what that means here is "
                "not known"
            )
