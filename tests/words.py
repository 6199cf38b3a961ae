"""Tokenizers for tests in which every text can be written: a token for each byte, and some more."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

ROWS = 512
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
    _save(backend, folder, added, template, adds_bos)


def name_pieces(folder: Path, added: Sequence[str] = (), template: str = "") -> None:
    """The same with a tokenizer as Llama 1 and 2 have it: a blank is written as a low line, which
    also stands before any text and after each special token, and joins with the letter that follows
    it; what is no ASCII character becomes its bytes."""
    letters = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    marks = [chr(code) for code in range(33, 127)]
    pieces = [*letters, *marks, "\N{LOWER ONE EIGHTH BLOCK}"]
    joined = [f"\N{LOWER ONE EIGHTH BLOCK}{mark}" for mark in marks]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, *joined])}
    merges = [("\N{LOWER ONE EIGHTH BLOCK}", mark) for mark in marks]
    backend = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Prepend("\N{LOWER ONE EIGHTH BLOCK}"),
            normalizers.Replace(" ", "\N{LOWER ONE EIGHTH BLOCK}"),
        ]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\N{LOWER ONE EIGHTH BLOCK}", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    _save(backend, folder, added, template, adds_bos=True)


def _save(
    backend: Tokenizer, folder: Path, added: Sequence[str], template: str, adds_bos: bool
) -> None:
    build: Any = PreTrainedTokenizerFast
    tokenizer = build(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=list(added),
    )
    if adds_bos:
        bos = tokenizer.bos_token_id
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", bos)]
        )
    tokenizer.chat_template = template or None
    tokenizer.save_pretrained(folder)
