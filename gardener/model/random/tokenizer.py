"""A tokenizer for random models: a token for each byte, and numbered ones up to the vocabulary, so
that any text can be read and any token be shown."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from gardener.model.checkpoint.folders import write_json

MERGE = ("Ġ", "Ġ")
"""Two spaces are one token: a byte-level tokenizer has to have merges."""

END = "<|end|>"


def tokens_for(vocab: int) -> list[str]:
    """All of them, in the spelling of byte-level tokenizers."""
    known = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "".join(MERGE), END]
    if vocab < len(known):
        raise ValueError(f"a vocabulary of {vocab}, of {len(known)} at least")
    return [*known, *(f"Ġ{number}" for number in range(len(known), vocab))]


def write_tokenizer(vocab: int, folder: Path) -> None:
    """Write it as a model's folder has it."""
    numbers = {token: number for number, token in enumerate(tokens_for(vocab))}
    tokenizer = Tokenizer(models.BPE(numbers, [MERGE]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "generation_config.json", {"eos_token_id": numbers[END]})
