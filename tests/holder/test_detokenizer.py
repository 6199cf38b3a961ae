"""Text that comes while the tokens do: in the end what the tokenizer makes of all of them."""

import pytest
from tokenizers import Tokenizer, decoders

from benchmarks.streaming import KINDS, sequences, streamed, whole
from gardener.holder.detokenizer import WINDOW, Detokenizer, token_text

LOST = "\N{REPLACEMENT CHARACTER}"


def ids(tokenizer: Tokenizer, *written: str) -> list[int]:
    found = [tokenizer.token_to_id(each) for each in written]
    assert None not in found, written
    return [token for token in found if token is not None]


def pieces(kind: str, prompt: list[str], answer: list[str]) -> list[str]:
    """The text of each token, and what is left at the end."""
    tokenizer = KINDS[kind]()
    text = Detokenizer(tokenizer, ids(tokenizer, *prompt))
    return [*(text.push([token]) for token in ids(tokenizer, *answer)), text.rest()]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_text_of_the_whole(kind: str) -> None:
    tokenizer = KINDS[kind]()
    for tokens, prompt in sequences(tokenizer, 400):
        assert streamed(tokenizer, tokens, prompt) == whole(tokenizer, tokens, prompt)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_in_pieces_of_any_size(kind: str) -> None:
    tokenizer = KINDS[kind]()
    for tokens, prompt in sequences(tokenizer, 50, seed=1):
        for size in (2, 7, 100):
            text = Detokenizer(tokenizer, tokens[:prompt])
            starts = range(prompt, len(tokens), size)
            got = "".join([text.push(tokens[at : at + size]) for at in starts])
            assert got + text.rest() == whole(tokenizer, tokens, prompt)


def test_the_first_word_after_a_prompt_has_its_space() -> None:
    assert pieces("llama", ["<s>", "▁the"], ["▁Baum"]) == [" Baum", ""]
    assert pieces("llama", ["<s>"], ["▁Baum"]) == ["Baum", ""]


def test_byte_tokens_are_held_back_until_another_token_comes() -> None:
    rocket = ["<0xF0>", "<0x9F>", "<0x9A>", "<0x80>"]
    assert pieces("llama", ["▁the"], ["<0x0A>", *rocket, "a"]) == [*[""] * 5, "\n🚀a", ""]
    assert pieces("llama", ["▁the"], ["<0x0A>", rocket[0], "a"]) == ["", "", f"{LOST}{LOST}a", ""]
    assert pieces("llama", ["▁the"], ["<0x0A>", rocket[0]]) == ["", "", LOST * 2]


def test_a_special_token_does_not_part_a_character() -> None:
    got = pieces("llama", [], ["a", "<0xC3>", "</s>", "<0xA9>", "a"])
    assert got == ["a", "", "", "", "éa", ""]


def test_a_character_that_the_prompt_began_belongs_to_the_answer() -> None:
    assert pieces("llama", ["a", "<0xC3>"], ["<0xA9>", "a"]) == ["", "éa", ""]
    assert pieces("byte_level", ["a", "Ã"], ["©"]) == ["é", ""]


def test_replacement_characters_come_when_they_are_certain() -> None:
    assert pieces("byte_level", ["a"], ["Ã", "Ã", "a"]) == ["", LOST, f"{LOST}a", ""]
    assert pieces("byte_level", ["a"], ["Ã"]) == ["", LOST]


def test_the_window_stays_small() -> None:
    for kind, written in (("byte_level", "a"), ("byte_level", "Ã"), ("llama", "▁the")):
        tokenizer = KINDS[kind]()
        token = ids(tokenizer, written)
        text = Detokenizer(tokenizer, token * 1000)
        for _ in range(500):
            text.push(token)
            assert len(text._window) <= WINDOW


@pytest.mark.parametrize("number", [-1, 99_999, 2**31, 2**40])
def test_numbers_without_a_token_are_no_text(number: int) -> None:
    tokenizer = KINDS["llama"]()
    text = Detokenizer(tokenizer, [number])
    assert text.push([number]) == text.rest() == ""
    assert text.fault is None
    assert token_text(tokenizer, number) in {"", LOST}


def test_a_tokenizer_that_fails_ends_nothing_and_is_told_of() -> None:
    tokenizer = KINDS["llama"]()
    # This one panics where a token is a single space.
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 1)])
    text = Detokenizer(tokenizer)
    got = [text.push([token]) for token in ids(tokenizer, "▁the", "▁", "garden")]
    assert got == ["the", LOST, "garden"]
    assert str(text.fault).startswith("PanicException: ")
    assert token_text(tokenizer, ids(tokenizer, "▁")[0]) == LOST
