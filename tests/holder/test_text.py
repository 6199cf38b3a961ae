"""Text from tokens: stop strings, unfinished characters, special tokens."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from benchmarks.streaming import KINDS, sequences, whole
from gardener.holder.answer import Wanted
from gardener.holder.text import LONGEST_STOP, TextStream


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
    stream = TextStream(TOKENIZER, (), ["END"])
    assert feed(stream, "one END two") == "one "
    assert stream.stopped
    assert stream.take(final=True) == ""


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_clear() -> None:
    stream = TextStream(TOKENIZER, (), ["END"])
    assert feed(stream, "one EN") == "one "
    assert feed(stream, "TER") == "ENTER"


def test_held_text_comes_at_the_end() -> None:
    stream = TextStream(TOKENIZER, (), ["END"])
    assert feed(stream, "the E") == "the "
    assert stream.take(final=True) == "E"


def test_the_first_of_several_stop_strings_counts() -> None:
    stream = TextStream(TOKENIZER, (), ["zz", "b"])
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
        TextStream(TOKENIZER, (), [""])


def test_a_stop_string_that_comes_too_early_is_text() -> None:
    stream = TextStream(TOKENIZER, (), ["END"], least=4)
    assert feed(stream, "xENDyENDz") == "xENDy"
    assert stream.stopped


def test_a_stop_string_counts_if_it_is_complete_late_enough() -> None:
    stream = TextStream(TOKENIZER, (), ["END"], least=3)
    assert feed(stream, "xENDy") == "x"


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_ends_with_the_first_token_that_completes_a_stop_string(kind: str) -> None:
    """Held to the texts that the tokenizer makes of ever longer answers."""
    tokenizer, chance, ended = KINDS[kind](), random.Random(1), 0
    for tokens, prompt in sequences(tokenizer, 150, seed=1):
        texts = [whole(tokenizer, tokens[:end], prompt) for end in range(prompt, len(tokens) + 1)]
        stop = texts[-1][(at := chance.randrange(len(texts[-1]) + 1)) : at + chance.randrange(1, 4)]
        if not stop or "\N{REPLACEMENT CHARACTER}" in stop:
            continue
        stream, text = TextStream(tokenizer, tokens[:prompt], [stop]), ""
        for token, right in zip(tokens[prompt:], texts[1:], strict=True):
            assert stream.push(token) == (stop in right)
            text += stream.take()
            assert right.startswith(text)
            if stream.stopped:
                assert text == right[: right.find(stop)]
                break
        ended += stream.stopped
    assert ended > 15


def im_end(stops: list[str]) -> TextStream:
    return TextStream(KINDS["byte_level"](), (), stops)


def push(stream: TextStream, *written: str) -> str:
    """What is shown of tokens that are written like this; the last one may end the text."""
    tokenizer, text = stream._tokenizer, ""
    for number, each in enumerate(written, 1):
        token = tokenizer.token_to_id(each)
        assert token is not None
        assert not stream.push(token) or number == len(written)
        text += stream.take()
    return text


def test_a_special_token_stops_what_it_is_no_text_of() -> None:
    stream = im_end(["<|im_end|>"])
    assert push(stream, "a", "</s>", "b", "<|im_end|>") == "ab"
    assert stream.stopped
    assert stream.take(final=True) == ""


def test_a_stop_string_may_hold_special_tokens_and_text_around_them() -> None:
    stream = im_end([".<|im_end|>a</s>"])
    assert push(stream, "x", ".", "<|im_end|>", "b", ".") == "x.b"
    assert push(stream, "<|im_end|>", "a") == ""
    assert push(stream, "b", ".", "<|im_end|>", "a", "</s>") == ".ab"
    assert stream.stopped


def test_special_tokens_that_no_stop_string_names_do_not_part_one() -> None:
    stream = im_end(["ab"])
    assert push(stream, "x", "a", "</s>", "b") == "x"
    assert stream.stopped


def test_what_stands_before_a_special_token_that_stops_is_given_out_as_it_is() -> None:
    tokenizer = KINDS["llama"]()
    stream = TextStream(tokenizer, (), ["</s>"])
    assert push(stream, "▁the", "<0x0A>", "<0xF0>", "</s>") == "the\N{REPLACEMENT CHARACTER}" + (
        "\N{REPLACEMENT CHARACTER}"
    )


def test_a_newline_of_a_byte_token_stops_at_once() -> None:
    stream = TextStream(KINDS["llama"](), (), ["\n"])
    assert push(stream, "▁the", "<0x0A>") == "the"
    assert stream.stopped


@given(
    st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=4),
    st.text("abc", max_size=24),
    st.integers(0, 6),
)
def test_text_is_held_exactly_as_long_as_it_may_be_a_stop_string(
    stops: list[str], text: str, least: int
) -> None:
    """Held to all ends of the text, one by one."""
    stream, shown, seen = TextStream(TOKENIZER, (), stops, least), "", ""
    for token, letter in zip(encode(text), text, strict=True):
        seen += letter
        done = stream.push(token)
        shown += stream.take()
        ends = [len(seen) - len(stop) for stop in stops if seen.endswith(stop)]
        assert done == (len(seen) > least and bool(ends))
        if done:
            assert shown == seen[: min(ends)]
            return
        begun = {stop[:length] for stop in stops for length in range(1, len(stop))}
        held = max((len(each) for each in begun if seen.endswith(each)), default=0)
        assert shown == seen[: len(seen) - held]
    assert shown + stream.take(final=True) == text


def test_a_stop_string_of_any_length_would_cost_time_with_each_token() -> None:
    Wanted([1], 1, ["a" * LONGEST_STOP])
    with pytest.raises(ValueError, match="stop 2 has 257 characters: give it 256 at most"):
        Wanted([1], 1, ["a", "a" * (LONGEST_STOP + 1)])


class Counted(str):
    """A stop string that counts how often it is compared with the end of a text."""

    compared = 0

    def startswith(self, *given: object) -> bool:
        Counted.compared += 1
        return str.startswith(self, *given)  # type: ignore[arg-type]


def test_what_may_begin_a_stop_string_is_looked_at_once() -> None:
    """Ends of the text that begin none are given out: all in all there are as many as letters."""
    stops = [Counted("a" * (LONGEST_STOP - 1) + letter) for letter in "bcd"]
    stream, text = TextStream(TOKENIZER, (), stops), ("a" * 200 + "e") * 5
    Counted.compared = 0
    assert feed(stream, text) == text
    assert Counted.compared < 3 * 2 * len(text)
