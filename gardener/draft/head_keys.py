"""The keys of a head's `config.json` that nothing here obeys: which of them may stand there.

A key that is passed over may be one that changes what the head computes. It would draft badly, and
nobody would be told why. So a key is obeyed (`eagle_config`), or known to have no effect, or
allowed the one value that is what happens here anyway; any other is refused by its name.
"""

import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gardener.errors import UserError

_REASONS = {
    "where it comes from and what wrote it": "_commit_hash _name_or_path architectures auto_map "
    "dtype finetuning_task name_or_path speculators_config speculators_version tokenizer_class "
    "torch_dtype transformers_version",
    "training, and how sure it is": "ce_loss_alpha confidence_head_alpha "
    "confidence_head_with_markov enable_confidence_head l1_loss_alpha loss_decay_gamma num_anchors",
    "running it elsewhere": "_attn_implementation _attn_implementation_autoset "
    "_attn_implementation_internal attention_dropout attn_implementation base_model_ep_plan "
    "base_model_pp_plan base_model_tp_plan embed_requires_grad enable_sp_ulysses "
    "gradient_checkpointing has_no_defaults_at_init initializer_range pretraining_tp torchscript "
    "use_bfloat16 use_cache",
    "text: the target's tokenizer counts": "begin_suppress_tokens bos_token_id cls_token_id "
    "decoder_start_token_id eos_token_id pad_token_id prefix sep_token_id suppress_tokens "
    "task_specific_params unk_token_id",
    "how a whole model would write": "bad_words_ids diversity_penalty do_sample early_stopping "
    "encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id "
    "forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size "
    "num_beam_groups num_beams num_return_sequences remove_invalid_values repetition_penalty "
    "temperature top_k top_p typical_p",
    "what a whole model would hand out": "chunk_size_feed_forward cross_attention_hidden_size "
    "id2label label2id num_labels output_attentions output_hidden_states output_scores "
    "problem_type pruned_heads return_dict return_dict_in_generate tf_legacy_loss "
    "tie_encoder_decoder",
    "tensors or other keys say it": "ignore_keys_at_rope_validation max_window_layers "
    "num_aux_hidden_states target_fingerprint tie_word_embeddings",
}

WITHOUT_EFFECT = frozenset(key for keys in _REASONS.values() for key in keys.split())
"""Keys that change nothing in what a head guesses."""

ONLY: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False, None),
    "compression_config": (None,),
    "is_causal": (True, None),
    "is_decoder": (True, False, None),
    "is_encoder_decoder": (False, None),
    "logit_scale": (1, None),
    "parallel_drafting": (False, None),
    "partial_rotary_factor": (1, None),
    "quantization_config": (None,),
    "rope_interleaved": (False, None),
    "sliding_window": (None,),
    "use_sliding_window": (False, None),
    # Within `eagle_config`:
    "next_layer_regular": (True, None),
    "parallel_draft_heads_num_layers": (0, 1, None),
    "parallel_draft_step": (0, 1, None),
    "use_aux_hidden_state": (True, None),
    "use_input_layernorm_in_first_layer": (True, None),
    "use_last_layernorm": (True, None),
    "use_mtp_layernorm": (False, None),
}
"""Values that are what happens here anyway."""

_FULL = "full_attention"


def refuse_unknown(
    file: Path,
    raw: Mapping[str, Any],
    obeyed: Collection[str],
    within: str,
    way_out: str,
    only: Mapping[str, tuple[Any, ...]] = ONLY,
) -> None:
    """Raise UserError for the first key of `raw` that is not obeyed and may have an effect.
    `within`: the key of this file whose value `raw` is; empty: it is the whole of it."""
    windows = raw.get("use_sliding_window") is not False
    for key, value in raw.items():
        if key in obeyed or key in WITHOUT_EFFECT or (key == "sliding_window" and not windows):
            continue
        name = f"{within}.{key}" if within else key
        if key not in only and key != "layer_types":
            raise UserError(
                f"{file}: {name} is not known here, so what it does to the head's guesses is not "
                f"done: take the key out if it does nothing; else {way_out}"
            )
        if not (_all_full(value) if key == "layer_types" else value in only[key]):
            raise UserError(
                f"{file}: {name} is {reprlib.repr(value)}, which is not supported: {way_out}"
            )


def _all_full(kinds: Any) -> bool:
    return kinds is None or (isinstance(kinds, list) and all(kind == _FULL for kind in kinds))
