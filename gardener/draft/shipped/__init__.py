"""Draft heads that come with the package, one folder each, as `gardener train-draft` wrote them."""

from collections.abc import Iterator
from pathlib import Path

from gardener.model.checkpoint.folders import read_json
from gardener.model.checkpoint.quantised import unquantised

TARGET = "target_fingerprint"
"""Key in a head's config.json: the model that it was trained for."""


def heads() -> Iterator[Path]:
    """The folders of all of them."""
    for config in sorted(Path(__file__).parent.glob("*/config.json")):
        yield config.parent


def head_for(fingerprint: str) -> Path | None:
    """The head that was trained for the very model with this fingerprint, weights and all; however
    it is quantised now, as if --quant had been given.

    None where the weights are not known: a fine-tune looks the same from outside, and a head for
    another model would be slow for no visible reason.
    """
    known, target = bool(fingerprint.partition(":")[2]), unquantised(fingerprint)
    return next((f for f in heads() if known and _target(f) == target), None)


def likely_head(fingerprint: str) -> Path | None:
    """Where the weights are not known: a head for a model of the same structure."""
    structure, _, content = unquantised(fingerprint).partition(":")
    alike = (f for f in heads() if not content and _target(f).partition(":")[0] == structure)
    return next(alike, None)


def _target(head: Path) -> str:
    return str(read_json(head / "config.json").get(TARGET, ""))
