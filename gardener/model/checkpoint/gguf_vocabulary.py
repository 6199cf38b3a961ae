"""What a GGUF file says of its tokenizer, checked before anything is made of it.

Every `tokenizer.*` key is read, known to be without effect here, or refused by name.
"""

import reprlib
from collections import Counter
from collections.abc import Mapping
from enum import IntEnum
from functools import cached_property
from typing import Annotated, Any

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import fields

from gardener.errors import UserError

WAY_OUT = "take the model's Hugging Face folder instead, or a GGUF file of a newer converter"

_PREFIX = "tokenizer.ggml."
_TEMPLATE = "tokenizer.chat_template"

_WITHOUT_EFFECT = {
    "tokenizer.chat_templates",  # the names of the templates, which have keys of their own
    "tokenizer.huggingface.json",  # all of it once more
    *(
        _PREFIX + name
        for name in (
            "token_type_count",  # of sentences, in BERT
            "seperator_token_id",
            "cls_token_id",
            "mask_token_id",
            "fim_pre_token_id",  # for code with a gap, which a prompt writes by itself
            "fim_suf_token_id",
            "fim_mid_token_id",
            "fim_pad_token_id",
            "fim_rep_token_id",
            "fim_sep_token_id",
            "prefix_token_id",
            "suffix_token_id",
            "middle_token_id",
        )
    ),
}

_ONLY = {  # what is said by default, and understood only then
    _PREFIX + "add_sep_token": False,
    _PREFIX + "remove_extra_whitespaces": False,
    _PREFIX + "suppress_tokens": [],
}

_ENDS = {  # not every converter writes the id of the token that ends a turn; llama.cpp knows them
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
}

_MODELS = {"llama": "SentencePiece BPE", "gpt2": "byte-level BPE"}


class TokenKind(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # special: found in text, and not shown
    USER_DEFINED = 4  # found in text before all else, and shown
    UNUSED = 5
    BYTE = 6


Token = Annotated[int, Meta(ge=0)]


class Vocabulary(Struct, frozen=True, kw_only=True, dict=True, rename=lambda name: _PREFIX + name):
    """The `tokenizer.ggml.*` keys that matter, by their own names."""

    model: str
    tokens: list[str]
    token_type: list[TokenKind]
    pre: str | None = None
    scores: list[float] | None = None
    merges: list[str] | None = None
    bos_token_id: Token | None = None
    eos_token_id: Token | None = None
    eot_token_id: Token | None = None
    eom_token_id: Token | None = None
    unknown_token_id: Token | None = None
    padding_token_id: Token | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool = False
    add_space_prefix: bool | None = None

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> "Vocabulary":
        """From all key-values of a GGUF file. Raises UserError, which names the key."""
        _check_model(metadata.get(_PREFIX + "model"))
        known = {field.encode_name: field for field in fields(cls)}
        values = {}
        for key, value in metadata.items():
            if key in known:
                values[known[key].name] = _converted(key, value, known[key].type)
            elif key.startswith("tokenizer."):
                _check_ignored(key, value)
        for field in known.values():
            if field.required and field.name not in values:
                raise UserError(f"the GGUF file has no {field.encode_name}: {WAY_OUT}")
        vocabulary = cls(**values)
        vocabulary._check()
        return vocabulary

    def _check(self) -> None:
        """Raises UserError for what does not fit together."""
        for name in ("token_type", "scores"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.tokens):
                raise UserError(
                    f"the GGUF file has {len(self.tokens)} tokens, but {len(values)} values in "
                    f"{_PREFIX}{name}: {WAY_OUT}"
                )
        check_unique(self.tokens)
        for field in fields(self):
            number = getattr(self, field.name)
            if field.name.endswith("_token_id") and number is not None and number >= len(self):
                raise UserError(
                    f"{field.encode_name} is {number}, but there are {len(self)} tokens: {WAY_OUT}"
                )

    def __len__(self) -> int:
        """All tokens, those that only fill up the model's rows among them."""
        return len(self.tokens)

    def text(self, token: int | None) -> str | None:
        """A token's text; None for None."""
        return None if token is None else self.tokens[token]

    @cached_property
    def used(self) -> int:
        """How many tokens there are without those at the end that fill up the model's rows, which
        converters make up."""
        end = len(self)
        while end and self._is_padding(end - 1):
            end -= 1
        return end

    def _is_padding(self, token: int) -> bool:
        unused = self.token_type[token] == TokenKind.UNUSED
        return unused and self.tokens[token] == f"[PAD{token}]"

    @cached_property
    def ends(self) -> list[int]:
        """Tokens that end an answer: those that have a key, and those known by their text."""
        keys = (self.eos_token_id, self.eot_token_id, self.eom_token_id)
        said = {token for token in keys if token is not None}
        known = {token for token, text in enumerate(self.tokens) if text in _ENDS}
        return sorted(said | known)

    @cached_property
    def special(self) -> frozenset[int]:
        """Tokens that are found in text and not shown. Those with a role are special whatever
        their type, which not every converter sets."""
        kinds = (TokenKind.CONTROL, TokenKind.UNKNOWN)
        by_type = (token for token in range(self.used) if self.token_type[token] in kinds)
        bos = None if self.add_bos_token is False else self.bos_token_id
        first = [] if bos is None else [bos]
        return frozenset([*by_type, *first, *self.ends])

    @cached_property
    def added(self) -> list[int]:
        """All tokens that are found in text as they are, in order: special and user-defined."""
        return [
            token
            for token in range(self.used)
            if token in self.special or self.token_type[token] == TokenKind.USER_DEFINED
        ]


def check_unique(tokens: list[str]) -> None:
    """Raises UserError for a token that is there twice: nothing could say which one is meant."""
    token, times = Counter(tokens).most_common(1)[0] if tokens else ("", 0)
    if times != 1:
        raise UserError(
            f"{_PREFIX}tokens has {reprlib.repr(token)} {times} times, and each token must be "
            f"there once: {WAY_OUT}"
        )


def chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name; the one without a name is the `default`. Raises UserError."""
    return {
        key.removeprefix(_TEMPLATE).removeprefix(".") or "default": _converted(key, value, str)
        for key, value in metadata.items()
        if _is_template(key)
    }


def _is_template(key: str) -> bool:
    return key == _TEMPLATE or key.startswith(_TEMPLATE + ".")


def _converted(key: str, value: Any, kind: Any) -> Any:
    try:
        return convert(value, kind)
    except ValidationError as error:
        why = str(error).replace("`", "").replace("Expected", "expected")
        raise UserError(f"{key} is {reprlib.repr(value)} ({why}): {WAY_OUT}") from error


def _check_model(model: Any) -> None:
    """Raises UserError for a kind that is not known; first of all, for it has keys of its own."""
    if str(model) not in _MODELS:
        known = " and ".join(f"{name!r} ({what})" for name, what in _MODELS.items())
        raise UserError(f"the GGUF file has {_PREFIX}model {model!r}; known are {known}: {WAY_OUT}")


def _check_ignored(key: str, value: Any) -> None:
    """Raises UserError for a key that has an effect which is not known here."""
    if key in _WITHOUT_EFFECT or _is_template(key) or (key in _ONLY and value == _ONLY[key]):
        return
    raise UserError(f"the GGUF file has {key} {reprlib.repr(value)}, not known here: {WAY_OUT}")
