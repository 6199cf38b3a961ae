"""A GGUF file's tokenizer and generation settings, written as a Hugging Face folder has them.

A GGUF file lists tokens with their kinds, and merges or scores; how text is cut, it says by a name
or not at all. The measure is what the model was trained with: the published `tokenizer.json` of
its family, and llama.cpp where families differ (`src/llama-vocab.cpp`, which defines the format).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from gardener.errors import UserError
from gardener.model.checkpoint.folders import write_json
from gardener.model.checkpoint.gguf_pre_tokenizers import pre_tokenizer
from gardener.model.checkpoint.gguf_vocabulary import (
    WAY_OUT,
    TokenKind,
    Vocabulary,
    chat_templates,
    check_unique,
)

_SPACE = "▁"  # how SentencePiece writes a space
_STAY = {"<s>", "<unk>", "<|endoftext|>"}  # of Phi-3, special tokens that leave a space in place

Merges = list[tuple[str, str]]


def write_tokenizer(metadata: Mapping[str, Any], folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and generation_config.json into a folder.

    metadata  all key-values of the GGUF file as plain values: str, int, float, bool, lists of them

    Raises UserError for what is missing, does not fit together, or is not known.
    """
    vocabulary = Vocabulary.read(metadata)
    architecture = str(metadata.get("general.architecture"))
    if vocabulary.model == "llama":
        tokenizer, add_bos = _sentencepiece(vocabulary, architecture), True
    else:
        tokenizer, add_bos = _byte_level(vocabulary, architecture)
    bos = _bos(vocabulary, add_bos)
    _frame(tokenizer, vocabulary, bos)
    settings = _settings(vocabulary, bos, chat_templates(metadata))
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "generation_config.json", _generation(vocabulary))


def _byte_level(vocabulary: Vocabulary, architecture: str) -> tuple[Tokenizer, bool]:
    """The tokenizer of kind "gpt2", and whether such a one starts a prompt with BOS."""
    rules = pre_tokenizer(vocabulary.pre, architecture, WAY_OUT)
    if vocabulary.merges is None:
        raise UserError(f"the GGUF file has no tokenizer.ggml.merges: {WAY_OUT}")
    if vocabulary.add_space_prefix:
        raise UserError(
            "the GGUF file has tokenizer.ggml.add_space_prefix true, which is not known of "
            f"byte-level tokenizers: {WAY_OUT}"
        )
    merges = _said_merges(vocabulary.merges)
    model = _bpe(vocabulary, vocabulary.tokens, merges, ignore_merges=rules.ignore_merges)
    tokenizer = Tokenizer(model)
    if rules.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(rules.steps()))
    tokenizer.decoder = decoders.ByteLevel()
    _add(tokenizer, vocabulary, vocabulary.tokens)
    return tokenizer, rules.add_bos


def _sentencepiece(vocabulary: Vocabulary, architecture: str) -> Tokenizer:
    """The tokenizer of kind "llama", for which `tokenizer.ggml.pre` has no meaning."""
    gemma = architecture.startswith("gemma")
    prefix = not gemma if vocabulary.add_space_prefix is None else vocabulary.add_space_prefix
    tokens = vocabulary.tokens if prefix else _respelled(vocabulary)
    if vocabulary.merges is None:
        merges = _made_merges(vocabulary, by_order=gemma)
    else:
        merges = _said_merges(vocabulary.merges)
    unknown = _unknown(vocabulary)
    model = _bpe(vocabulary, tokens, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    special = {vocabulary.tokens[token] for token in vocabulary.special}
    _space(tokenizer, prefix, once="[INST]" in special)
    _add(tokenizer, vocabulary, tokens, normalized=not prefix, strip=architecture == "phi3")
    return tokenizer


def _space(tokenizer: Tokenizer, prefix: bool, once: bool) -> None:
    """How spaces are written, and the one that is put before text.

    prefix  whether there is one
    once    only where text starts, as Mistral's models want it that have tokens for [INST]; else
            before each stretch between special tokens, as the code of Llama 1 and 2, Vicuna and
            the first Mistral encodes turn by turn
    """
    spaces = normalizers.Replace(" ", _SPACE)
    steps: list[decoders.Decoder] = [
        decoders.Replace(_SPACE, " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
    ]
    if not prefix:
        tokenizer.normalizer = spaces
    else:
        steps.append(decoders.Strip(" ", 1, 0))
        if once:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, "first", split=False)
        else:
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces])
    tokenizer.decoder = decoders.Sequence(steps)


def _respelled(vocabulary: Vocabulary) -> list[str]:
    """The tokens with user-defined spaces as the model's own files write them: GGUF files have
    plain ones, since they look for such tokens before spaces are replaced. Raises UserError."""
    kinds = zip(vocabulary.tokens, vocabulary.token_type, strict=True)
    tokens = [
        text.replace(" ", _SPACE) if kind == TokenKind.USER_DEFINED else text
        for text, kind in kinds
    ]
    check_unique(tokens)
    return tokens


def _unknown(vocabulary: Vocabulary) -> str | None:
    """The text of the token for what no other stands for. Raises UserError if one is needed."""
    kinds = vocabulary.token_type
    token = vocabulary.unknown_token_id
    if token is None and TokenKind.UNKNOWN in kinds:
        token = kinds.index(TokenKind.UNKNOWN)
    if token is None and kinds.count(TokenKind.BYTE) < 256:
        raise UserError(
            "the GGUF file has neither a token for every byte nor tokenizer.ggml."
            f"unknown_token_id, so some characters would be left out: {WAY_OUT}"
        )
    return vocabulary.text(token)


def _said_merges(merges: Iterable[str]) -> Merges:
    """Pairs from "left right"; a space at the start is a part of the left one."""
    pairs = []
    for merge in merges:
        cut = merge.find(" ", 1)
        if cut < 0:
            raise UserError(f"tokenizer.ggml.merges has {merge!r}, which is no pair: {WAY_OUT}")
        pairs.append((merge[:cut], merge[cut + 1 :]))
    return pairs


def _made_merges(vocabulary: Vocabulary, by_order: bool) -> Merges:
    """All pairs of tokens that make a token, best first, as SentencePiece merges them.

    by_order  the tokens' own order says which is best, not their scores: so Gemma's published
              tokenizer has it
    """
    scores = vocabulary.scores
    if scores is None:
        raise UserError(
            f"the GGUF file has neither tokenizer.ggml.scores nor tokenizer.ggml.merges: {WAY_OUT}"
        )
    mergeable = {
        text: token
        for token, text in enumerate(vocabulary.tokens)
        if vocabulary.token_type[token] in (TokenKind.NORMAL, TokenKind.UNUSED)
        and token not in vocabulary.special
    }
    order = list(mergeable)
    if not by_order:
        # Equal scores, which some converters write for all tokens, leave the tokens' own order.
        order.sort(key=lambda text: -scores[mergeable[text]])
    return [
        (text[:cut], text[cut:])
        for text in order
        for cut in range(len(text) - 1, 0, -1)
        if text[:cut] in mergeable and text[cut:] in mergeable
    ]


def _bpe(vocabulary: Vocabulary, tokens: list[str], merges: Merges, **options: Any) -> BPE:
    """The model of both kinds. Raises UserError for merges that do not fit the tokens."""
    inside = _inside(vocabulary, tokens, merges)
    known = {text: token for token, text in enumerate(tokens[:inside])}
    try:
        return BPE(vocab=known, merges=merges, **options)
    except Exception as error:  # the library raises no narrower one
        why = f"tokenizer.ggml.merges does not fit the tokens ({error}): {WAY_OUT}"
        raise UserError(why) from error


def _inside(vocabulary: Vocabulary, tokens: list[str], merges: Merges) -> int:
    """How many tokens the model itself has: published files leave out the added ones at the end,
    and whoever compares two vocabularies should find the same."""
    end = vocabulary.used
    added = set(vocabulary.added)
    while end and end - 1 in added:
        end -= 1
    behind = set(tokens[end : vocabulary.used])
    if any(left in behind or right in behind or left + right in behind for left, right in merges):
        return vocabulary.used
    return end


def _add(
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    tokens: list[str],
    *,
    normalized: bool = False,
    strip: bool = False,
) -> None:
    """Have added tokens found in text.

    normalized  user-defined tokens with spaces are looked for after spaces are replaced
    strip       special tokens take the space that follows, as Phi-3's do
    """
    texts = ((token in vocabulary.special, tokens[token]) for token in vocabulary.added)
    tokenizer.add_tokens(
        [
            AddedToken(
                text,
                special=special,
                normalized=normalized and not special and _SPACE in text,
                rstrip=strip and text not in _STAY,
            )
            for special, text in texts
        ]
    )


def _bos(vocabulary: Vocabulary, by_default: bool) -> int | None:
    """The token a prompt starts with, None for none. Raises UserError if it is not said."""
    bos, wanted = vocabulary.bos_token_id, vocabulary.add_bos_token
    if wanted is None:  # byte-level families have models with BOS and without
        wanted = by_default and (bos is not None or vocabulary.model == "llama")
    if wanted and bos is None:
        raise UserError(
            "the GGUF file has no tokenizer.ggml.bos_token_id, and prompts are to start with it: "
            f"{WAY_OUT}"
        )
    return bos if wanted else None


def _frame(tokenizer: Tokenizer, vocabulary: Vocabulary, bos: int | None) -> None:
    """Have prompts start with BOS and end with EOS, where the file wants it. Raises UserError."""
    eos = vocabulary.eos_token_id if vocabulary.add_eos_token else None
    if vocabulary.add_eos_token and eos is None:
        raise UserError(
            "the GGUF file has tokenizer.ggml.add_eos_token true, but no "
            f"tokenizer.ggml.eos_token_id: {WAY_OUT}"
        )
    texts = {token: vocabulary.tokens[token] for token in (bos, eos) if token is not None}
    before = [] if bos is None else [texts[bos]]
    after = [] if eos is None else [texts[eos]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[
            *before,
            "$A",
            *after,
            *(f"{t}:1" for t in before),
            "$B:1",
            *(f"{t}:1" for t in after),
        ],
        special_tokens=[(text, token) for token, text in texts.items()],
    )


def _settings(
    vocabulary: Vocabulary, bos: int | None, templates: Mapping[str, str]
) -> dict[str, Any]:
    """What tokenizer_config.json says. A token with a role is treated as special by whoever reads
    it, so that an ordinary one, which converters give as padding, has none here."""
    roles = {
        "bos_token": vocabulary.bos_token_id,
        "eos_token": vocabulary.eos_token_id,
        "unk_token": vocabulary.unknown_token_id,
        "pad_token": vocabulary.padding_token_id,
    }
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # that is: tokenizer.json as it is
        "add_bos_token": bos is not None,
        "add_eos_token": vocabulary.add_eos_token,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    for role, token in roles.items():
        settings[role] = vocabulary.text(token) if token in vocabulary.special else None
    if templates.keys() == {"default"}:
        settings["chat_template"] = templates["default"]
    elif templates:
        settings["chat_template"] = [
            {"name": name, "template": text} for name, text in sorted(templates.items())
        ]
    return settings


def _generation(vocabulary: Vocabulary) -> dict[str, Any]:
    """What generation_config.json says: where an answer ends."""
    said = {
        "bos_token_id": vocabulary.bos_token_id,
        "eos_token_id": vocabulary.ends,
        "pad_token_id": vocabulary.padding_token_id,
    }
    return {key: value for key, value in said.items() if value not in (None, [])}
