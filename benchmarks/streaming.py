"""Random sequences of tokens: is the streamed text the one that the whole sequence makes?

    python -m benchmarks.streaming --sequences 10000

For each kind of tokenizer: sequences whose streamed text differs from what the tokenizer decodes of
prompt and answer less what it decodes of the prompt, and those that raise; the same for
`DecodeStream` of the tokenizers library, which is not told of the prompt where `alone`, and is
given the prompt token by token where `after`.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.decoders import DecodeStream

from gardener.holder.detokenizer import common
from gardener.holder.text import TextStream

WORDS = ("a", "garden", "▁", "▁▁", "▁the", "▁Baum", "▁\N{REPLACEMENT CHARACTER}", "木", ".", "▁é")
TEXTS = ("é", "€", "木", "🚀", "\n", "a", " ", "\u2581", "👩‍🚀")
SPECIAL = ("<s>", "</s>", "<|im_end|>")
MORE_ROWS = 3
"""Rows that the model has beyond the tokens of its tokenizer."""


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen: tokens are bytes, some of them parts of characters."""
    level = pre_tokenizers.ByteLevel
    pieces = sorted(level.alphabet())
    for text in (*WORDS, "".join(TEXTS)):
        whole = "".join(part for part, _ in level(False, use_regex=False).pre_tokenize_str(text))
        pieces += [whole, whole[1:], whole[:-1]]
    return _tokenizer([piece for piece in pieces if piece], decoders.ByteLevel())


def llama() -> Tokenizer:
    """As Llama 1 and 2, Vicuna, Mistral: bytes where there is no token, a space before words."""
    return _falling_back(decoders.Fuse(), decoders.Strip(" ", 1, 0))


def gemma() -> Tokenizer:
    """The same, and spaces at the beginning stay."""
    return _falling_back(decoders.Fuse())


def metaspace() -> Tokenizer:
    """As older files have it: the space is taken from the first token."""
    decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return _tokenizer(_bytes_and_words(), decoder)


def wordpiece() -> Tokenizer:
    """As BERT: tokens are words, and `##` continues one."""
    words = ("a", "tree", ",", ".", "'s", "not", "do", "n't")
    pieces = [piece for word in words for piece in (word, f"##{word}")]
    return _tokenizer(pieces, decoders.WordPiece())


def ended_words() -> Tokenizer:
    """As GPT-1: tokens say where a word ends."""
    words = ("a", "tree", ",", "木")
    pieces = [piece for word in words for piece in (word, f"{word}</w>")]
    return _tokenizer(pieces, decoders.BPEDecoder("</w>"))


def bare() -> Tokenizer:
    """Without a decoder: tokens with spaces between them."""
    return _tokenizer(list(WORDS), None)


KINDS: dict[str, Callable[[], Tokenizer]] = {
    make.__name__: make
    for make in (byte_level, llama, gemma, metaspace, wordpiece, ended_words, bare)
}


def _bytes_and_words() -> list[str]:
    return [*(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]


def _falling_back(*rest: decoders.Decoder) -> Tokenizer:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), *rest]
    return _tokenizer(_bytes_and_words(), decoders.Sequence(steps))


def _tokenizer(pieces: Sequence[str], decoder: decoders.Decoder | None) -> Tokenizer:
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens([AddedToken("<tool>"), AddedToken(" two words ")])
    return tokenizer


def sequences(tokenizer: Tokenizer, count: int, seed: int = 0) -> Iterator[tuple[list[int], int]]:
    """Tokens, and how many of them are the prompt's. Some are drawn alone, some spell a character,
    whole or cut short."""
    chance = random.Random(seed)
    size = tokenizer.get_vocab_size()
    special = [token for each in SPECIAL if (token := tokenizer.token_to_id(each)) is not None]
    for _ in range(count):
        tokens: list[int] = []
        for _ in range(chance.randrange(1, chance.choice((5, 20, 80)))):
            what = chance.random()
            if what < 0.4:
                spelled = _spelled(tokenizer, chance.choice(TEXTS))
                tokens += spelled[: chance.choice((None, None, -1))]
            elif what < 0.5:
                tokens.append(chance.choice(special))
            else:
                # The last tokens are words, of which there should be as many as bytes.
                least = max(0, size - 24) if what < 0.75 else 0
                tokens.append(chance.randrange(least, size + MORE_ROWS))
        yield tokens, chance.randrange(len(tokens) + 1)


def _spelled(tokenizer: Tokenizer, text: str) -> list[int]:
    """The bytes of a text as tokens, where there are any."""
    level = pre_tokenizers.ByteLevel(False, use_regex=False)
    letters = [letter for part, _ in level.pre_tokenize_str(text) for letter in part]
    fallback = [f"<0x{byte:02X}>" for byte in text.encode()]
    for names in (fallback, letters):
        tokens = [tokenizer.token_to_id(name) for name in names]
        if None not in tokens:
            return [token for token in tokens if token is not None]
    return []


def whole(tokenizer: Tokenizer, tokens: Sequence[int], prompt: int) -> str:
    """The text of the answer, decoded at once."""
    before, text = tokenizer.decode(tokens[:prompt]), tokenizer.decode(tokens)
    return text[common(before, text) :]


def streamed(tokenizer: Tokenizer, tokens: Sequence[int], prompt: int) -> str:
    """The text of the answer as it comes."""
    stream, text = TextStream(tokenizer, tokens[:prompt]), ""
    for token in tokens[prompt:]:
        stream.push(token)
        text += stream.take()
    return text + stream.take(final=True)


def alone(tokenizer: Tokenizer, tokens: Sequence[int], prompt: int) -> str:
    """The library's stream of the answer, which does not know the prompt."""
    stream = DecodeStream(skip_special_tokens=True)
    return "".join(stream.step(tokenizer, token) or "" for token in tokens[prompt:])


def after(tokenizer: Tokenizer, tokens: Sequence[int], prompt: int) -> str:
    """The library's stream of prompt and answer."""
    stream = DecodeStream(skip_special_tokens=True)
    texts = [stream.step(tokenizer, token) or "" for token in tokens]
    return "".join(texts[prompt:])


WAYS = (streamed, after, alone)


def compared(kind: str, count: int) -> dict[str, dict[str, int]]:
    """How many differ and raise, for every way."""
    tokenizer = KINDS[kind]()
    found = {way.__name__: {"differ": 0, "raise": 0} for way in WAYS}
    for tokens, prompt in sequences(tokenizer, count):
        right = whole(tokenizer, tokens, prompt)
        for way in WAYS:
            try:
                found[way.__name__]["differ"] += way(tokenizer, tokens, prompt) != right
            except Exception:  # the library's stream raises that very class
                found[way.__name__]["raise"] += 1
    return found


def seconds(kind: str, count: int) -> float:
    """Per token, of an answer of so many."""
    tokenizer = KINDS[kind]()
    tokens = [token for each, _ in sequences(tokenizer, count // 10) for token in each][:count]
    stream, began = TextStream(tokenizer), time.perf_counter()
    for token in tokens:
        stream.push(token)
        stream.take()
    return (time.perf_counter() - began) / len(tokens)


def main() -> None:
    """Print one line for each kind of tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=10_000)
    count = parser.parse_args().sequences
    for kind in KINDS:
        took = {str(length): f"{1e6 * seconds(kind, length):.1f} us" for length in (1000, 30_000)}
        found = compared(kind, count)
        print(json.dumps({"kind": kind, "sequences": count, **found, "per token of": took}))


if __name__ == "__main__":
    main()
