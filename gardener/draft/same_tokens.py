"""Whether a draft means the same by a token as the target does: tokenizers tell, not numbers of
rows.

The sizes of one family may pad the same tokens to matrices of different size, and two families may
have matrices of the same size for other tokens. Guesses in other tokens would never be wrong in the
text, only in vain, without a word: such a pair is refused.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer

from gardener.errors import UserError
from gardener.runtime.wording import Say

_FILE = "tokenizer.json"
_OLDER = ("tokenizer.model", "vocab.json", "vocab.txt")
"""What a tokenizer is made of in a folder without a `tokenizer.json`."""


def tokens_of(folder: Path) -> dict[int, str]:
    """The tokens of the tokenizer in a folder by number, added ones too; empty where there is no
    tokenizer. Raises UserError for one that cannot be read."""
    file = folder / _FILE
    try:
        if file.exists():
            numbers = Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
        elif any((folder / name).exists() for name in _OLDER):
            numbers = _older(folder)
        else:
            numbers = {}
    except Exception as error:  # both trust what the files say: nearly any of them
        reason = textwrap.shorten(" ".join(str(error).split()) or type(error).__name__, 300)
        name = file if file.exists() else f"the tokenizer in {folder}"
        raise UserError(f"{name} cannot be read ({reason}): mend it, or take it away") from error
    return {number: token for token, number in numbers.items()}


def _older(folder: Path) -> dict[str, int]:
    from transformers import AutoTokenizer  # late: it takes seconds, and is seldom needed

    numbers: dict[str, int] = AutoTokenizer.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,  # else it asks the user whether to run what the folder brings
    ).get_vocab()
    return numbers


def difference(ours: Mapping[int, str], theirs: Mapping[int, str], rows: int) -> str:
    """What is to be said of the first of `rows` numbers that stands for one token here and for
    another there; empty: none does."""
    both = sorted(number for number in ours.keys() & theirs.keys() if number < rows)
    for number in both:
        if ours[number] != theirs[number]:
            return f"its token {number} is {ours[number]!r}, the model's is {theirs[number]!r}"
    return ""


def tokens_to_draft(draft: Path, rows: int, target: Path, target_rows: int, say: Say) -> int:
    """How many tokens, from the first one on, a draft model with `rows` rows may guess for a target
    with `target_rows`: those that both can write, and no row that merely fills a matrix up.

    Without a tokenizer in one of the folders, the numbers of rows have to be the same; that it was
    no more than that is said. Raises UserError for a pair that does not fit.
    """
    ours, theirs = tokens_of(draft), tokens_of(target)
    if not ours or not theirs:
        bare = target if ours else draft
        return _by_rows(draft, rows, bare, target_rows, say)
    different = difference(ours, theirs, min(rows, target_rows))
    if different:
        raise UserError(
            f"the draft model in {draft} has other tokens than the model in {target}: {different}; "
            "--draft-model takes a model with the same tokenizer, as a smaller one of the same "
            "family has"
        )
    return min(rows, target_rows, max(theirs) + 1)


def _by_rows(draft: Path, rows: int, bare: Path, target_rows: int, say: Say) -> int:
    if rows != target_rows:
        raise UserError(
            f"the draft model in {draft} has a vocabulary of {rows}, the model one of "
            f"{target_rows}, and {bare} has no tokenizer that would say whether the tokens are the "
            "same: put its tokenizer.json there, or give --draft-model one of the same family"
        )
    say(
        f"{bare} has no tokenizer, so it is not known whether the draft model's tokens are the "
        "model's: if they are others, its guesses are in vain"
    )
    return rows
