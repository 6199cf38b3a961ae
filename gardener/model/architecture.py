"""What a model looks like, read from its `config.json`, and whether Gardener can run it.

An `Architecture` says all that decides what a model computes, beside its weights. It is made from
the sizes, which every config has, and from what its family obeys beyond them (`families.py`).
Anything else is refused by name: a model that is nearly right would write text that is nearly
right.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gardener.errors import UserError
from gardener.model.checkpoint.config import ModelConfig, checked, transformers_config, unreadable
from gardener.model.checkpoint.folders import read_json
from gardener.model.checkpoint.plain_config import plain_config
from gardener.model.checkpoint.slices import Slice, even_cut
from gardener.model.context import context_length
from gardener.model.families import FAMILIES, Mixture, Norms, differences
from gardener.model.quants import AUTO, QUANT_BYTES, of_head

LAYER_BYTES = {
    "none": 3.5e6,
    "int4": 3.5e6,
    "int8": 1.3e6,
    "nf4": 4.5e6,
    "fp4": 4.5e6,
    "llm-int8": 4.5e6,
}
"""What a layer of each kind costs beside reading its weights (attention, launching kernels), as
bytes to be read.

Fitted on one core with a model of 30 layers of 576, whose head takes as long as 5.1 layers in
float32, 6.1 in int4, 6.0 in int8 and 8.8 in nf4. For large models it does not matter.
"""

WAY_OUT = "mend the file, or take another model"


@dataclass(frozen=True)
class Architecture:
    """All that decides what a model computes, but for its weights.

    tied             the head is the embedding, where the checkpoint has no head of its own
    windows          one entry per layer: how far it sees back, None: all
    ropes            settings of each rotary embedding there is
    rope_of          one entry per layer: the place in `ropes` of its own, None: it has none
    context          most tokens, of prompt and answer together
    trained          most tokens before a rotary embedding is scaled (`max_position_embeddings`)
    activation       what `families.ACTIVATIONS` calls it
    norms            where a layer has norms
    norm_offset      is added to the weights of norms
    wide_norm        norms are multiplied with their weights before they are rounded to 16 bits
    qk_norm          queries and keys have norms
    scale            of the products of queries and keys; None: head_dim ** -0.5
    softcap          bound of these products, which approach it as a tanh does; None: no bound
    logit_softcap    the same of logits
    embedding_scale  factor on embeddings
    residual_scale   factor on what each half of a layer adds
    logit_scale      factor on logits
    fused            the checkpoint has q, k and v in one tensor, and gate and up in another
    mixture          the experts; None: there are none
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
    context: int
    trained: int
    windows: tuple[int | None, ...]
    ropes: tuple[Mapping[str, Any], ...]
    rope_of: tuple[int | None, ...]
    activation: str = "silu"
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norms: Norms = "before"
    norm_offset: float = 0.0
    wide_norm: bool = False
    scale: float | None = None
    softcap: float | None = None
    logit_softcap: float | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    fused: bool = False
    mixture: Mixture | None = None

    @classmethod
    def read(cls, folder: Path) -> "Architecture":
        """From the `config.json` in a folder. Raises UserError if it is missing, foreign, or makes
        no sense."""
        file = folder / "config.json"
        raw = read_json(file)
        _refuse_foreign(checked(ModelConfig, file, raw, WAY_OUT), folder)
        known = plain_config(raw) or transformers_config(folder, WAY_OUT)
        try:
            architecture = cls.from_config(known)
            _refuse_odd(architecture)
        except UserError as error:
            raise UserError(f"{file}: {error}: {WAY_OUT}") from error
        except Exception as error:  # what transformers lets pass may still be of any type
            raise unreadable(folder, error, WAY_OUT) from error
        return architecture

    @classmethod
    def from_config(cls, config: Any) -> "Architecture":
        """From a transformers config of a supported family, or from an object with its attributes.
        Raises UserError for odd variants."""
        layers = config.num_hidden_layers
        head_dim = getattr(config, "head_dim", None)
        sizes = {
            "family": config.model_type,
            "layers": layers,
            "width": config.hidden_size,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_dim": head_dim or config.hidden_size // config.num_attention_heads,
            "inner": config.intermediate_size,
            "vocab": config.vocab_size,
            "eps": config.rms_norm_eps,
            "tied": bool(config.tie_word_embeddings),
            "trained": int(config.max_position_embeddings),
            "windows": (None,) * layers,
            "rope_of": (0,) * layers,
        }
        made = {**sizes, **differences(config)}
        lengths = (
            context_length(config.model_type, rope, made["trained"]) for rope in made["ropes"]
        )
        return cls(**made, context=max(lengths))

    def facts(self) -> dict[str, Any]:
        """All that decides what the model computes, but for its weights; for the fingerprint. What
        is as in most models is left out, so that a field more changes no fingerprint."""
        usual = {"windows": (None,) * self.layers, "rope_of": (0,) * self.layers}
        told = (f for f in fields(self) if f.name not in ("context", "trained", "tied"))
        found = {f.name: getattr(self, f.name) for f in told}
        found = {n: each for n, each in found.items() if each != usual.get(n, _DEFAULTS.get(n))}
        if any(rope.get("rope_type") in ("dynamic", "longrope") for rope in self.ropes):
            found["trained"] = self.trained  # their frequencies depend on it
        return found | ({} if self.mixture is None else {"mixture": asdict(self.mixture)})

    def balance(self, stages: int, quant: str = "none", quant_head: str = AUTO) -> list[Slice]:
        """Cut the model so that no stage is slower than it must be. `quant`: a kind in
        `quants.QUANTS`, `quant_head` one in `quants.HEAD_QUANTS`.

        Counted from the sizes alone, so that every machine comes to the same cut. Of experts only
        those count that a token goes through: they are what takes time, all of them take memory.
        """
        head = self.vocab * self.width * QUANT_BYTES[of_head(quant_head, quant)]
        costs = [self._weights(layer) * QUANT_BYTES[quant] for layer in range(self.layers)]
        beside = LAYER_BYTES[quant]
        return even_cut([round(cost + beside) for cost in costs], round(head), stages)

    def rotated(self, rope: Mapping[str, Any]) -> int:
        """How many numbers of a head a rotary embedding with these settings turns, the first
        ones."""
        return int(self.head_dim * rope.get("partial_rotary_factor", 1.0))

    def held_weights(self, layer: int) -> int:
        """How many weights of linear layers a layer has, those of all experts among them."""
        return self._weights(layer, self.mixture.experts if self.mixture else 0)

    def _weights(self, layer: int, experts: int | None = None) -> int:
        """How many weights of a layer a token is multiplied with, if it goes through so many
        experts (None: as many as it does)."""
        queries = self.heads * self.head_dim
        attention = self.width * (2 * queries + 2 * self.kv_heads * self.head_dim)
        mixture = self.mixture
        if mixture is None or not mixture.layers[layer]:
            return attention + 3 * self.width * self.inner
        through = mixture.chosen if experts is None else experts
        return attention + self.width * (mixture.experts + 3 * through * mixture.inner)


_DEFAULTS = {f.name: f.default for f in fields(Architecture)}


def _refuse_foreign(raw: ModelConfig, folder: Path) -> None:
    family, classes = raw.model_type, raw.architectures or ()
    if family == "gemma3":
        raise UserError(
            f"{folder.name} is a Gemma 3 for pictures and text, which is not supported: take one "
            "for text alone (Gemma3ForCausalLM, as gemma-3-1b-it is), or save the text part of "
            "this one as such a model"
        )
    if family not in FAMILIES or not all(
        name.lower() == FAMILIES[family].model.lower() for name in classes
    ):
        kind = f"{', '.join(classes) or 'unnamed'} (model_type {family})"
        known = ", ".join(each.model for each in FAMILIES.values())
        raise UserError(f"{folder.name} is of architecture {kind}; supported are {known}")
    method = raw.quantization_config and raw.quantization_config.quant_method
    if method:
        raise UserError(
            f"{folder.name} is stored quantised ({method}): take the unquantised model, and "
            "--quant int4 or int8 if it must be small"
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
    mixture = architecture.mixture
    if mixture is not None and not 1 <= mixture.chosen <= mixture.experts:
        raise UserError(
            f"num_experts_per_tok is {mixture.chosen}, of {mixture.experts} experts in a layer"
        )
    for key, entries in {
        "layer_types": architecture.windows,
        "no_rope_layers": architecture.rope_of,
    }.items():
        if len(entries) != architecture.layers:
            raise UserError(
                f"{key} has {len(entries)} entries, num_hidden_layers is {architecture.layers}"
            )
