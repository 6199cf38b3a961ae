"""Text from tokens: stop strings, unfinished characters, special tokens."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from gardener.holder.text import TextStream


def alphabet() -> Tokenizer:
    """One token for each byte; 256 is a special token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


TOKENIZER = alphabet()


def encode(text: str) -> list[int]:
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found = [TOKENIZER.token_to_id(c) for part, _ in level.pre_tokenize_str(text) for c in part]
    return [token for token in found if token is not None]


def feed(stream: TextStream, text: str) -> str:
    out = ""
    for token in encode(text):
        done = stream.push(token)
        out += stream.take()
        if done:
            break
    return out


def test_text_comes_as_the_tokens_do() -> None:
    stream = TextStream(TOKENIZER)
    assert feed(stream, "a garden") == "a garden"
    assert stream.take(final=True) == ""


def test_a_stop_string_ends_the_text_before_it() -> None:
    stream = TextStream(TOKENIZER, ["END"])
    assert feed(stream, "one END two") == "one "
    assert stream.stopped
    assert stream.take(final=True) == ""


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_clear() -> None:
    stream = TextStream(TOKENIZER, ["END"])
    assert feed(stream, "one EN") == "one "
    assert feed(stream, "TER") == "ENTER"


def test_held_text_comes_at_the_end() -> None:
    stream = TextStream(TOKENIZER, ["END"])
    assert feed(stream, "the E") == "the "
    assert stream.take(final=True) == "E"


def test_the_first_of_several_stop_strings_counts() -> None:
    stream = TextStream(TOKENIZER, ["zz", "b"])
    assert feed(stream, "abzz") == "a"


def test_a_character_of_several_tokens_comes_whole() -> None:
    stream = TextStream(TOKENIZER)
    tokens = encode("é")
    assert len(tokens) == 2
    stream.push(tokens[0])
    assert stream.take() == ""
    stream.push(tokens[1])
    assert stream.take() == "é"


def test_special_tokens_are_no_text() -> None:
    stream = TextStream(TOKENIZER)
    assert stream.push(256) is False
    assert stream.take(final=True) == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        TextStream(TOKENIZER, [""])


def test_a_stop_string_that_comes_too_early_is_text() -> None:
    stream = TextStream(TOKENIZER, ["END"], least=4)
    assert feed(stream, "xENDyENDz") == "xENDy"
    assert stream.stopped


def test_a_stop_string_counts_if_it_is_complete_late_enough() -> None:
    stream = TextStream(TOKENIZER, ["END"], least=3)
    assert feed(stream, "xENDy") == "x"
