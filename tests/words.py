"""Tokenizers for tests in which every text can be written: a token for each byte, and some more."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

ROWS = 288
"""What a model for such a tokenizer has as its vocabulary: bytes, and room for added tokens."""


def name_bytes(
    folder: Path, added: Sequence[str] = (), template: str = "", *, adds_bos: bool = True
) -> None:
    """Give the model in a folder a byte-level tokenizer. It has `<s>` and `</s>`, which begin and
    end a text, and `added` as special tokens. `adds_bos`: it puts `<s>` before a text itself."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    build: Any = PreTrainedTokenizerFast
    extra = [token for token in added if token not in ("<s>", "</s>")]
    tokenizer = build(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", additional_special_tokens=extra
    )
    if adds_bos:
        bos = tokenizer.bos_token_id
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", bos)]
        )
    tokenizer.chat_template = template or None
    tokenizer.save_pretrained(folder)
