"""GGUF files: dequantised once into an ordinary Hugging Face folder in float32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gardener.errors import UserError, reason
from gardener.runtime.files import check_room, whole_folder


def convert(gguf: Path, target: Path, say: Callable[[str], None], way_out: str) -> None:
    """Dequantise a GGUF file into an ordinary folder in float32. The whole model is in memory."""
    say(f"converting {gguf.name} to {target}")
    with whole_folder(target, way_out) as folder:
        model, tokenizer = _load_gguf(gguf)
        _write_model(model, folder, way_out)
        tokenizer.save_pretrained(folder)


def _load_gguf(gguf: Path) -> tuple[Any, Any]:
    """The transformers model and tokenizer in a GGUF file. Raises UserError."""
    # Only here: these pull in most of transformers, which a node must not pay for.
    import torch
    import transformers

    # The tokenizer's settings may stand beside the file, and name code: it is never run.
    safe: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False}
    options = dict(safe)
    settings = getattr(transformers, "GgufConfig", None)
    if settings is not None:  # newer versions keep the weights quantised unless told otherwise
        options["quantization_config"] = settings(dequantize=True)
    bars: Any = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, **options
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **safe)
    except ImportError as error:
        raise UserError("GGUF files need two packages more: pip install gguf accelerate") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{gguf} cannot be read: {reason(error)}") from error
    finally:
        if shown:
            bars.enable_progress_bar()
    return model, tokenizer


def _write_model(model: Any, folder: Path, way_out: str) -> None:
    """Weights, config and generation config; `save_pretrained` refuses models that were GGUF."""
    import json

    from safetensors.torch import save_file

    config = {key: value for key, value in model.config.to_dict().items() if key[0] != "_"}
    config.pop("quantization_config", None)
    config["architectures"] = [type(model).__name__]
    weights = model.state_dict()
    if config.get("tie_word_embeddings"):
        weights.pop("lm_head.weight", None)
    nbytes = sum(tensor.nbytes for tensor in weights.values())
    check_room(folder.parent, nbytes, way_out)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    (folder / "model.safetensors").chmod(0o644)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    model.generation_config.save_pretrained(folder)
