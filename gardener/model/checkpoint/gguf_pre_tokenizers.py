"""How byte-level tokenizers cut text before they merge, by what GGUF files call it.

A GGUF file names its pre-tokenizer (`tokenizer.ggml.pre`) and gives nothing else: what the name
means is known to its readers. The names are those of llama.cpp (`src/llama-vocab.cpp`), which
defines the format; the regular expressions are those of the models' own `tokenizer.json`. Only
names are listed whose models can run here, and whose rules are known for sure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

from gardener.errors import UserError

DIGITS = r"\p{N}"
"""Every digit by itself."""

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CL100K = (  # GPT-4
    rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

_CJK = "[一-龥ࠀ-一가-\ud7ff]+"
_WITH_CASE = (  # what DeepSeek's first models take for letters
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕ"
    "ἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ"
    "\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)


def _cased(short: str, number: str) -> str:
    """Words that end where small letters turn to capitals, as GPT-4o cuts them."""
    start = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{start}{_UPPER}*{_LOWER}+{short}|{start}{_UPPER}+{_LOWER}*{short}|{number}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
    )


@dataclass(frozen=True)
class PreTokenizer:
    """Rules for one kind of byte-level tokenizer.

    patterns       regular expressions; each cuts what the ones before it left, and both what it
                   finds and what is between become pieces
    nfc            whether text is composed first (Unicode NFC)
    ignore_merges  whether a piece that is a token is taken whole, whatever the merges would make
    add_bos        whether a prompt starts with BOS if the file does not say
    """

    patterns: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool = False
    add_bos: bool = False

    def steps(self) -> Iterator[pre_tokenizers.PreTokenizer]:
        """The same for the tokenizers library."""
        for pattern in self.patterns:
            if pattern == DIGITS:
                yield pre_tokenizers.Digits(individual_digits=True)
            else:
                yield pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        yield pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


_GPT2 = PreTokenizer((_WORDS,))
_STARCODER = PreTokenizer((DIGITS, _WORDS))
_GPT4 = PreTokenizer((_CL100K,))
_LLAMA3 = PreTokenizer((_CL100K,), ignore_merges=True, add_bos=True)
_GPT4O = PreTokenizer((_cased(_SHORT + "?", r"\p{N}{1,3}"),))
_QWEN2 = PreTokenizer((_CL100K.replace(r"\p{N}{1,3}", DIGITS),), nfc=True)

PRE_TOKENIZERS = {
    "gpt-2": _GPT2,
    "phi-2": _GPT2,
    "olmo": PreTokenizer((_WORDS,), nfc=True),  # GPT-NeoX's
    "starcoder": _STARCODER,
    "refact": _STARCODER,  # Granite too
    "smollm": _STARCODER,
    "dbrx": _GPT4,  # OLMo 2 and Phi-4 too
    "smaug-bpe": _GPT4,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "falcon3": _LLAMA3,
    "pixtral": _LLAMA3,
    "gpt-4o": _GPT4O,  # Phi-4-mini too
    "tekken": PreTokenizer((_cased("", DIGITS),), ignore_merges=True, add_bos=True),
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, DIGITS)),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?[{_WITH_CASE}]+",
            r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
            r"\s+$",
            _CJK,
            DIGITS,
        )
    ),
    "deepseek-v3": PreTokenizer(
        (
            r"\p{N}{1,3}",
            "[一-龥\u3040-ゟ゠-ヿ]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
            r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _SPACES,
        )
    ),
}

_OF_FAMILIES = dict.fromkeys(("qwen2", "qwen2moe", "qwen3", "qwen3moe"), "qwen2")
_UNSAID = (None, "", "default")  # what converters write that do not know the tokenizer


def pre_tokenizer(pre: str | None, architecture: str, way_out: str) -> PreTokenizer:
    """The rules by the name in the file. Raises UserError for names that are not known.

    pre           `tokenizer.ggml.pre`, None where there is none: then the family must make it sure
    architecture  `general.architecture`
    way_out       what to do about it
    """
    name = _OF_FAMILIES.get(architecture) if pre in _UNSAID else pre
    if name is None:
        raise UserError(
            f"the GGUF file does not say how its tokenizer cuts text (tokenizer.ggml.pre is "
            f"{pre!r}), and guessing would give other tokens than the model knows: {way_out}"
        )
    if name not in PRE_TOKENIZERS:
        raise UserError(
            f"the GGUF file has tokenizer.ggml.pre {name!r}, which is not known here (known: "
            f"{', '.join(sorted(PRE_TOKENIZERS))}): {way_out}"
        )
    rules = PRE_TOKENIZERS[name]
    if architecture == "qwen2" and rules is not _QWEN2:
        # transformers takes no folder of this family by its tokenizer.json, but by its own rules.
        raise UserError(
            f"the GGUF file has tokenizer.ggml.pre {name!r}, and transformers reads every Qwen2 "
            f"model's text by Qwen2's own rules: {way_out}"
        )
    return rules
