"""Tiny real tokenizers, and what the metadata of a GGUF file says of them.

Each tokenizer is put together as its family publishes it; the metadata gives only its vocabulary.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

TEXTS = (
    "The ring passes hidden states on, and the ring's first stage says: we'll see, THEY'LL see.",
    "In 2024 there were 1000 nodes, 365 days, 12345678 tokens; 3.14159 is not 22/7.",
    "\n\n1. first\n2. second\n\n\n   indented\n\tif x == 10:\n\t\treturn camelCase(HTTPServer)",
    "Grüße aus Köln, ça va? Ñandú! naïve café: 你好，世界。こんにちは 안녕 Привет мир ١٢٣ Ⅷ ½",
    "🙂🙂 👩‍👩‍👧 don't DON'T it's   spaces    here  \r\n\r\n end.   ",
    "a aa aaa aaaa aaaaa banana bandana mississippi the there then they them",
)

Split = pre_tokenizers.Split
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
_DIGITS = pre_tokenizers.Digits(individual_digits=True)

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _cuts(*patterns: str) -> list[Any]:
    return [*(Split(Regex(pattern), "isolated") for pattern in patterns), _BYTES]


BYTE_LEVEL: dict[str, list[Any]] = {
    "gpt-2": [_GPT2],
    "olmo": [_GPT2],
    "smollm": [_DIGITS, _GPT2],
    "refact": [_DIGITS, _GPT2],
    "llama-bpe": _cuts(_LLAMA3),
    "falcon3": _cuts(_LLAMA3),
    "dbrx": _cuts(_LLAMA3),
    "smaug-bpe": _cuts(_LLAMA3),
    "qwen2": _cuts(_QWEN2),
    "deepseek-r1-qwen": _cuts(_QWEN2),
    "tekken": _cuts(_TEKKEN),
    "gpt-4o": _cuts(_GPT4O),
    "deepseek-v3": _cuts(r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", _DEEPSEEK3),
    "deepseek-coder": [
        *_cuts(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")[:-1],
        _DIGITS,
        _BYTES,
    ],
}
"""By `tokenizer.ggml.pre`: the steps of the published pre-tokenizer."""

_COMPOSED = {"qwen2", "deepseek-r1-qwen", "olmo"}
_WHOLE = {"llama-bpe", "falcon3", "tekken"}

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n'"
    " }}{% endif %}"
)


def byte_level(pre: str) -> tuple[Tokenizer, dict[str, Any]]:
    """A tokenizer of kind "gpt2" with the specials of ChatML, and its metadata."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(BYTE_LEVEL[pre])
    tokenizer.decoder = decoders.ByteLevel()
    if pre in _COMPOSED:
        tokenizer.normalizer = normalizers.NFC()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    trained = json.loads(tokenizer.to_str())
    trained["model"]["vocab"]["Ġbandana"] = tokenizer.get_vocab_size()  # no merges make it
    trained["model"]["ignore_merges"] = pre in _WHOLE
    tokenizer = Tokenizer.from_str(json.dumps(trained))
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in specials])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    ids = {text: tokenizer.token_to_id(text) for text in specials}
    return tokenizer, {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in _merges(tokenizer)],
        "tokenizer.ggml.bos_token_id": ids["<|im_start|>"],
        "tokenizer.ggml.eos_token_id": ids["<|im_end|>"],
        "tokenizer.ggml.padding_token_id": ids["<|endoftext|>"],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
        **_vocabulary(tokenizer),
    }


def sentencepiece(*, prefix: bool = True, more: Sequence[AddedToken] = ()) -> dict[str, Any]:
    """Metadata of kind "llama". The scores say the order in which a trainer found the pairs; there
    are no merges, as in files of models that bring a `tokenizer.model`.

    prefix  whether a space is put before text
    more    added tokens behind the others
    """
    tokenizer = Tokenizer(models.BPE())
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    tokenizer.pre_tokenizer = Split("▁", "merged_with_next")
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=byte_tokens, show_progress=False)
    tokenizer.train_from_iterator(TEXTS[:4] + TEXTS[5:], trainer)
    pieces = _in_order(tokenizer)[256:]
    # As SentencePiece has it, which trains on text without emoji here: characters come last.
    merged = [piece for piece in pieces if len(piece) > 1]
    tokens = ["<unk>", "<s>", "</s>", *byte_tokens, *merged, *(p for p in pieces if len(p) == 1)]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(pieces)]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(pieces))]
    for token in more:
        tokens.append(token.content)
        kinds.append(3 if token.special else 4)
        scores.append(-1000.0)
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": prefix,
    }


def merged_by_score(metadata: dict[str, Any], text: str) -> list[int]:
    """What SentencePiece makes of text without special tokens: the best pair is merged, the
    leftmost of equals, until none is left; what is no token then becomes bytes."""
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata["tokenizer.ggml.token_type"]
    score = dict(zip(tokens, metadata["tokenizer.ggml.scores"], strict=True))
    ids = {text: token for token, text in enumerate(tokens) if kinds[token] == 1}
    prefix = "▁" if metadata["tokenizer.ggml.add_space_prefix"] and text else ""
    symbols = list(prefix + text.replace(" ", "▁"))
    while True:
        pairs = [
            (-score[left + right], place)
            for place, (left, right) in enumerate(pairwise(symbols))
            if left + right in ids
        ]
        if not pairs:
            break
        _, place = min(pairs)
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
    known = {text: [token] for text, token in ids.items()}
    return [
        token
        for symbol in symbols
        for token in known.get(symbol) or [3 + byte for byte in symbol.encode()]
    ]


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return merges


def _in_order(tokenizer: Tokenizer) -> list[str]:
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=vocab.__getitem__)


def _vocabulary(tokenizer: Tokenizer) -> dict[str, Any]:
    added = tokenizer.get_added_tokens_decoder()
    tokens = _in_order(tokenizer)
    kinds = [
        1 if token not in added else 3 if added[token].special else 4
        for token in range(len(tokens))
    ]
    return {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds}
