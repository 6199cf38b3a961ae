"""How few tokens a text can be."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import words
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from gardener.holder.detokenizer import LETTER_OF
from gardener.holder.prompter import Prompter, TooLong
from gardener.holder.token_lengths import TokenLengths


def byte_level() -> Tokenizer:
    """A token for each byte and one of four blanks."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    blank = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(" ")[0][0]
    pieces = [*letters, blank * 2, blank * 4]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [(blank, blank), (blank * 2, blank * 2)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def composing() -> Tokenizer:
    made = byte_level()
    made.normalizer = normalizers.Sequence([normalizers.NFC()])
    return made


def falling_back() -> Tokenizer:
    """As Llama 2 and Gemma have it."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁": 256, "▁▁": 257}
    made = Tokenizer(models.BPE(vocabulary, [("▁", "▁")], byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    return made


def gappy() -> Tokenizer:
    """Some bytes that no text had are no tokens, as in SmolLM: they become nothing."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    missing = {LETTER_OF[byte] for byte in (ord("a"), 0xF0, 0xC0)}
    letters = sorted(set(level.alphabet()) - missing)
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    made.pre_tokenizer = level
    return made


def greedy() -> Tokenizer:
    """An added token takes the blanks around it."""
    made = byte_level()
    made.add_special_tokens([AddedToken("<a>", lstrip=True, rstrip=True)])
    return made


@pytest.mark.parametrize("make", [byte_level, composing, falling_back, gappy, greedy])
@given(st.text("a \u0301\u0308\u1112\u1161\u11ab<a>🚀", max_size=40))
def test_there_are_never_fewer(make: Callable[[], Tokenizer], text: str) -> None:
    tokenizer = make()
    lengths = TokenLengths(tokenizer)
    assert lengths.least("x" * 80) > 0
    assert lengths.least(text) <= len(tokenizer.encode(text).ids)


def dropping(change: Callable[[Tokenizer], None]) -> Tokenizer:
    made = byte_level()
    change(made)
    return made


def without(tokenizer: Tokenizer, **parts: object) -> None:
    for name, part in parts.items():
        setattr(tokenizer, name, part)


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": normalizers.Replace(Regex(" +"), " ")},
        {"normalizer": normalizers.Replace("aa", "a")},
        {"normalizer": normalizers.Strip()},
        {
            "pre_tokenizer": pre_tokenizers.Sequence(
                [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel()]
            )
        },
        {"pre_tokenizer": pre_tokenizers.Whitespace()},
        {"model": models.BPE({"a": 0}, [])},
        {"model": models.WordLevel({"a": 0}, unk_token="a")},
    ],
    ids=str,
)
def test_there_is_no_telling_where_characters_get_lost(parts: dict[str, object]) -> None:
    made = dropping(lambda tokenizer: without(tokenizer, **parts))
    assert TokenLengths(made).least("x" * 1000) == 0


def test_a_text_that_is_far_too_long_is_not_tokenised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.make("llama", tmp_path, vocab_size=words.ROWS, max_position_embeddings=64)
    words.name_bytes(tmp_path, (), "{% for m in messages %}{{ m.content }}{% endfor %}")
    prompter = Prompter(tmp_path)
    assert len(prompter.chat([{"role": "user", "content": "x" * 60}])) == 60
    with pytest.raises(TooLong, match="the prompt has 70 tokens, and"):
        prompter.chat([{"role": "user", "content": "x" * 70}])
    monkeypatch.setattr(prompter, "_tokenizer", Silent(prompter._tokenizer))
    monkeypatch.setattr(prompter._chat, "_tokenizer", prompter._tokenizer)
    for text in ("x" * 300, "é" * 300):
        said = "the prompt has 300 characters, so 75 tokens at the very least, and with the answer"
        with pytest.raises(TooLong, match=said):
            prompter.chat([{"role": "user", "content": text}])
        with pytest.raises(TooLong, match=said) as caught:
            prompter.encode(text, raw=True)
        assert "--context" in str(caught.value)
        assert caught.value.over_http.endswith("there may be 64: shorten it")


class Silent:
    """A tokenizer that is not to be asked for tokens."""

    def __init__(self, tokenizer: object) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)
