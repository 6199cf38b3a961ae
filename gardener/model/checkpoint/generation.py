"""How a model's authors would have it sampled: the `generation_config.json` of its folder."""

from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from gardener.errors import UserError
from gardener.model.checkpoint.config import checked
from gardener.model.checkpoint.folders import read_json
from gardener.protocol.sampling import Sampling

FILE = "generation_config.json"

WAY_OUT = "mend the file, or give the settings as options in place of --sample"


class GenerationConfig(Struct, frozen=True):
    """The fields that say how to pick. None: not said."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


def own_sampling(folder: Path) -> Sampling | None:
    """What the model in this folder brings; None if it says nothing of how to pick.

    As transformers reads the file, it means sampling where `do_sample` is true, and the likeliest
    token otherwise (temperature 0 here; the other fields are kept, for whoever sets another
    temperature). A temperature that is not named is 1. A `top_k` that is not named is none, though
    transformers would take 50: the file does not say so, and vLLM, which most models are served
    with, takes what is said and nothing else.

    Raises UserError, which names the file and the field, for values that cannot be.
    """
    file = folder / FILE
    if not file.exists():
        return None
    config = checked(GenerationConfig, file, read_json(file), WAY_OUT)
    said: dict[str, Any] = {
        name: value for name, value in asdict(config).items() if value is not None
    }
    if not said:
        return None
    if said.pop("do_sample", False):
        said.setdefault("temperature", 1.0)
    else:
        said["temperature"] = 0.0
    try:
        return Sampling(**said)
    except ValueError as error:
        raise UserError(f"{file}: {error} ({WAY_OUT})") from error
