"""What a model looks like, read from its `config.json`, and whether Gardener can run it.

One `Architecture` covers Llama 1/2/3, Vicuna, SmolLM2, Mistral (sliding window), Qwen2 (bias on q,
k, v) and Qwen3 (norm on q and k). Anything else is refused by name: a model that is nearly right
would write text that is nearly right.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gardener.errors import UserError
from gardener.model.checkpoint.config import ModelConfig, checked, transformers_config, unreadable
from gardener.model.checkpoint.folders import read_json
from gardener.model.checkpoint.plain_config import plain_config
from gardener.model.checkpoint.slices import Slice, even_cut
from gardener.model.context import context_length

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""Supported `model_type`s and the class that each of them names in `architectures`."""

QUANT_BYTES = {"none": 2.0, "int8": 1.0, "nf4": 0.56, "fp4": 0.56}
"""Bytes per weight of the layers; the 4-bit formats carry a float32 scale per 64 weights."""

LAYER_BYTES = 8e6
"""What a layer costs beside its weights (attention, launching kernels), as bytes to be read.

Measured on one core with a model of 30 layers of 576; for large models it does not matter.
"""


WAY_OUT = "mend the file, or take another model"


@dataclass(frozen=True)
class Architecture:
    """Sizes of a model. `windows` has one entry per layer: how far it sees back, None: all.

    context: most tokens, of prompt and answer together. config: what transformers makes of it all.
    """

    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocab: int
    eps: float
    tied: bool
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    qk_norm: bool
    windows: tuple[int | None, ...]
    rope: dict[str, Any]
    context: int
    config: "Callable[[], PretrainedConfig]" = field(repr=False, compare=False)

    @classmethod
    def read(cls, folder: Path) -> "Architecture":
        """From the `config.json` in a folder. Raises UserError if it is missing, foreign, or makes
        no sense."""
        file = folder / "config.json"
        raw = read_json(file)
        _refuse_foreign(checked(ModelConfig, file, raw, WAY_OUT), folder)
        whole = partial(transformers_config, folder, WAY_OUT)
        known = plain_config(raw) or whole()
        try:
            architecture = cls.from_config(known, whole)
            _refuse_odd(architecture)
        except UserError as error:
            raise UserError(f"{file}: {error}: {WAY_OUT}") from error
        except Exception as error:  # what transformers lets pass may still be of any type
            raise unreadable(folder, error, WAY_OUT) from error
        return architecture

    @classmethod
    def from_config(
        cls, config: Any, whole: "Callable[[], PretrainedConfig] | None" = None
    ) -> "Architecture":
        """From a transformers config of a supported family, or from an object with its attributes;
        `whole` then makes the real one. Raises UserError for odd variants."""
        family = config.model_type
        bias = bool(getattr(config, "attention_bias", False))
        rope = dict(config.rope_parameters)
        if config.hidden_act != "silu":
            raise UserError(f"hidden_act '{config.hidden_act}' is not supported, only silu")
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise UserError("a model that rotates only part of each head is not supported")
        return cls(
            family=family,
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim
            if getattr(config, "head_dim", None)
            else config.hidden_size // config.num_attention_heads,
            inner=config.intermediate_size,
            vocab=config.vocab_size,
            eps=config.rms_norm_eps,
            tied=bool(config.tie_word_embeddings),
            qkv_bias=bias or family == "qwen2",
            out_bias=bias,
            mlp_bias=bool(getattr(config, "mlp_bias", False)),
            qk_norm=family == "qwen3",
            windows=_windows(config),
            rope=rope,
            context=context_length(family, rope, int(config.max_position_embeddings)),
            config=whole or (lambda: config),
        )

    def facts(self) -> dict[str, Any]:
        """All that decides what the model computes, but for its weights; for the fingerprint."""
        aside = ("context", "config")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in aside}

    def balance(self, stages: int, quant: str = "none") -> list[Slice]:
        """Cut the model so that no stage is slower than it must be.

        Counted from the sizes alone, so that every machine comes to the same cut.
        """
        queries = self.heads * self.head_dim
        attention = self.width * (2 * queries + 2 * self.kv_heads * self.head_dim)
        layer = (attention + 3 * self.width * self.inner) * QUANT_BYTES[quant] + LAYER_BYTES
        head = self.vocab * self.width * QUANT_BYTES["none"]
        return even_cut(layer, head, self.layers, stages)


def _refuse_foreign(raw: ModelConfig, folder: Path) -> None:
    family, classes = raw.model_type, raw.architectures or ()
    if family not in FAMILIES or not all(
        name.lower() == FAMILIES[family].lower() for name in classes
    ):
        kind = f"{', '.join(classes) or 'unnamed'} (model_type {family})"
        raise UserError(
            f"{folder.name} is of architecture {kind}; supported are {', '.join(FAMILIES.values())}"
        )
    method = raw.quantization_config and raw.quantization_config.quant_method
    if method:
        raise UserError(
            f"{folder.name} is stored quantised ({method}): take the unquantised model, and "
            "--quant nf4, fp4 or int8 if it must be small"
        )


def _refuse_odd(architecture: Architecture) -> None:
    """Raise UserError for sizes that do not go together."""
    if architecture.heads % architecture.kv_heads:
        raise UserError(
            f"num_attention_heads is {architecture.heads}, no multiple of num_key_value_heads, "
            f"{architecture.kv_heads}"
        )
    if architecture.head_dim % 2 or not architecture.head_dim:
        raise UserError(f"head_dim is {architecture.head_dim}, which must be even")
    if len(architecture.windows) != architecture.layers:
        raise UserError(
            f"layer_types has {len(architecture.windows)} entries, num_hidden_layers is "
            f"{architecture.layers}"
        )


def _windows(config: Any) -> tuple[int | None, ...]:
    window: int | None = getattr(config, "sliding_window", None)
    if config.model_type == "mistral":
        return tuple(window for _ in range(config.num_hidden_layers))
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    odd = set(kinds) - {"full_attention", "sliding_attention"}
    if odd:
        raise UserError(f"layers of type {', '.join(sorted(odd))} are not supported")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
