"""Text that comes while the tokens do: in the end what the tokenizer makes of all of them."""

import pytest
from tokenizers import Tokenizer, decoders

from benchmarks.streaming import KINDS, sequences, streamed, whole
from gardener.holder.detokenizer import WINDOW, Detokenizer, token_bytes, token_text

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


def test_special_tokens_may_be_text() -> None:
    """What is undecided before one ends with it."""
    tokenizer = KINDS["llama"]()
    tokens = ids(tokenizer, "a", "<0xC3>", "</s>", "<0xA9>", "</s>", "▁the", "a")
    text = Detokenizer(tokenizer, ids(tokenizer, "▁the"), {"</s>"})
    assert text.push(tokens) + text.rest() == f"a{LOST}</s>{LOST}</s>thea"
    again = Detokenizer(tokenizer, ids(tokenizer, "▁the"), {"</s>"})
    singly = "".join([again.push([token]) for token in tokens])
    assert singly + again.rest() == f"a{LOST}</s>{LOST}</s>thea"


@pytest.mark.parametrize("kind", ["byte_level", "llama", "gemma"])
def test_the_bytes_of_tokens_are_those_of_the_text(kind: str) -> None:
    """Where the bytes of a text are all characters; a decoder strips its first blank."""
    tokenizer = KINDS[kind]()
    compared = 0
    for tokens, _ in sequences(tokenizer, 200):
        text = tokenizer.decode(tokens, skip_special_tokens=False)
        joined = b"".join(token_bytes(tokenizer, token) for token in tokens)
        if LOST not in text and joined.decode(errors="replace").count(LOST) == 0:
            compared += 1
            assert joined.decode().lstrip() == text.lstrip()
    assert compared > 10


def test_a_token_may_be_part_of_a_character() -> None:
    for kind, part in (("llama", "<0xC3>"), ("byte_level", "Ã")):
        tokenizer = KINDS[kind]()
        assert token_bytes(tokenizer, ids(tokenizer, part)[0]) == b"\xc3", kind
    tokenizer = KINDS["llama"]()
    assert token_bytes(tokenizer, ids(tokenizer, "▁the")[0]) == b" the"
    assert token_bytes(tokenizer, ids(tokenizer, "</s>")[0]) == b"</s>"
    assert token_bytes(tokenizer, 10**6) == b""
