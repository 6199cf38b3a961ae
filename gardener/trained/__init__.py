"""Draft heads that come with the package, one folder each, as `gardener train-draft` wrote them."""

from collections.abc import Iterator
from pathlib import Path

from gardener.stages.folders import read_json
from gardener.survey import same_model

TARGET = "target_fingerprint"
"""Key in a head's config.json: the model that it was trained for."""


def heads() -> Iterator[Path]:
    """The folders of all of them."""
    for config in sorted(Path(__file__).parent.glob("*/config.json")):
        yield config.parent


def head_for(fingerprint: str) -> Path | None:
    """The head that was trained for the model with this fingerprint, if there is one."""
    for folder in heads():
        if same_model(str(read_json(folder / "config.json").get(TARGET, "")), fingerprint):
            return folder
    return None
