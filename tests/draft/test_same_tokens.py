"""Tokens, not numbers of rows, decide whether a draft model fits."""

import json
from collections.abc import Callable
from pathlib import Path

import heads
import pytest
import tiny
import torch
from tokenizers import Tokenizer, models

from gardener.decoding.tree import Tree
from gardener.draft.calibration import Calibration
from gardener.draft.factory import DraftSettings, drafters
from gardener.draft.incremental import Incremental
from gardener.draft.same_tokens import difference, tokens_of, tokens_to_draft
from gardener.draft.small_model import SmallModel
from gardener.errors import UserError
from gardener.protocol.sampling import Sampling

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
WORDS = [f"w{number}" for number in range(50)]


def folder_with(folder: Path, words: list[str], added: tuple[str, ...] = ()) -> Path:
    """A folder whose tokenizer has these tokens, numbered in order."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=words[0]))
    tokenizer.add_special_tokens(list(added))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def pair(
    tmp_path: Path, rows: int, target_rows: int, say: Callable[[str], None] = lambda text: None
) -> SmallModel:
    """A draft model and a target with matrices of these sizes, whatever tokenizers are there."""
    tiny.make("llama", tmp_path / "small", seed=3, vocab_size=rows)
    tiny.make("llama", tmp_path / "target", vocab_size=target_rows)
    return SmallModel(
        tmp_path / "small", tmp_path / "target", dtype="float32", device="cpu", say=say
    )


def guessed(network: SmallModel, prompt: list[int]) -> list[int]:
    """Every token that it guesses after the prompt, likeliest first."""
    draft = Incremental(network, Calibration(), width=100).open(prompt)
    tree = Tree(len(prompt) - 1, prompt[-1])
    (told,) = heads.said(draft.expand([tree.lineage(tree.root)]))
    return [guess.token for guess in told]


# --- what fits -------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "target_rows"), [(56, 61), (61, 56), (61, 61), (50, 61)])
def test_matrices_padded_to_other_sizes_are_no_matter(
    rows: int, target_rows: int, tmp_path: Path
) -> None:
    """Qwen2.5: one vocabulary, 151,936 rows in the small sizes and 152,064 in the large ones."""
    for name in ("small", "target"):
        folder_with(tmp_path / name, WORDS)
    network = pair(tmp_path, rows, target_rows)
    model = tiny.make("llama", tmp_path / "again", seed=3, vocab_size=rows)
    best = tiny.last_logits(model, PROMPT)[: len(WORDS)].argsort(descending=True)
    assert guessed(network, PROMPT) == best.tolist()  # all tokens there are, and no row beyond


def test_a_target_with_more_tokens_may_say_them(tmp_path: Path) -> None:
    folder_with(tmp_path / "small", WORDS)
    folder_with(tmp_path / "target", WORDS, ("<more>", "<and>"))
    network = pair(tmp_path, 50, 61)
    told = guessed(network, [*PROMPT, 51, 60])
    assert sorted(told) == list(range(50))


def test_a_draft_model_with_more_tokens_keeps_them_to_itself(tmp_path: Path) -> None:
    folder_with(tmp_path / "small", WORDS, ("<more>", "<and>"))
    folder_with(tmp_path / "target", WORDS)
    assert sorted(guessed(pair(tmp_path, 61, 61), PROMPT)) == list(range(50))


def test_tokens_that_were_added_count(tmp_path: Path) -> None:
    for name in ("small", "target"):
        folder_with(tmp_path / name, WORDS, ("<more>",))
    assert sorted(guessed(pair(tmp_path, 61, 56), PROMPT)) == list(range(51))


def test_tokens_without_a_row_are_not_compared(tmp_path: Path) -> None:
    folder_with(tmp_path / "small", WORDS, ("<one>", "<image>"))
    folder_with(tmp_path / "target", WORDS, ("<one>", "<audio>"))
    assert tokens_to_draft(tmp_path / "small", 51, tmp_path / "target", 61, print) == 51


# --- what does not ---------------------------------------------------------------------------


def test_other_tokens_in_matrices_of_the_same_size_are_refused(tmp_path: Path) -> None:
    folder_with(tmp_path / "small", [*WORDS[:7], "x7", "x8", *WORDS[9:]])
    folder_with(tmp_path / "target", WORDS)
    with pytest.raises(UserError) as refused:
        pair(tmp_path, 61, 61)
    assert str(refused.value) == (
        f"the draft model in {tmp_path / 'small'} has other tokens than the model in "
        f"{tmp_path / 'target'}: its token 7 is 'x7', the model's is 'w7'; --draft-model takes a "
        "model with the same tokenizer, as a smaller one of the same family has"
    )


def test_other_added_tokens_are_refused(tmp_path: Path) -> None:
    folder_with(tmp_path / "small", WORDS, ("<one>",))
    folder_with(tmp_path / "target", WORDS, ("<other>",))
    with pytest.raises(UserError, match="its token 50 is '<one>', the model's is '<other>'"):
        pair(tmp_path, 61, 61)


@pytest.mark.parametrize("bare", ["small", "target"])
def test_without_a_tokenizer_it_is_said_that_nothing_was_compared(
    bare: str, tmp_path: Path
) -> None:
    folder_with(tmp_path / ("target" if bare == "small" else "small"), WORDS)
    said = list[str]()
    assert sorted(guessed(pair(tmp_path, 61, 61, said.append), PROMPT)) == list(range(61))
    assert [line.partition(",")[0] for line in said] == [f"{tmp_path / bare} has no tokenizer"]


def test_a_holder_is_told(tmp_path: Path) -> None:
    pair(tmp_path, 61, 61)
    said = list[str]()
    settings = DraftSettings(model="small")
    drafters(
        settings,
        tmp_path / "target",
        lambda name: tmp_path,
        lambda name: tmp_path / name,
        said.append,
    )
    assert len(said) == 1
    assert "not known whether the draft model's tokens are the model's" in said[0]


def test_with_both_tokenizers_nothing_is_said(tmp_path: Path) -> None:
    for name in ("small", "target"):
        folder_with(tmp_path / name, WORDS)
    said = list[str]()
    pair(tmp_path, 61, 61, said.append)
    assert said == []


@pytest.mark.parametrize("bare", ["small", "target"])
def test_without_a_tokenizer_other_numbers_of_rows_are_refused(bare: str, tmp_path: Path) -> None:
    folder_with(tmp_path / ("target" if bare == "small" else "small"), WORDS)
    with pytest.raises(UserError, match=r"vocabulary of 61, the model one of 56, and .*no token"):
        pair(tmp_path, 61, 56)


# --- reading tokenizers ----------------------------------------------------------------------


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError) as refused:
        tokens_of(tmp_path)
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / 'tokenizer.json'} cannot be read (")
    assert said.endswith("): mend it, or take it away")


def test_an_older_tokenizer_is_read_by_transformers(tmp_path: Path) -> None:
    """Its parts say the same tokens as the one file that newer ones have."""
    numbers = {"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}
    (tmp_path / "vocab.json").write_text(json.dumps(numbers))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    settings = {"tokenizer_class": "GPT2Tokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = tokens_of(tmp_path)
    assert {number: found[number] for number in numbers.values()} == {
        number: token for token, number in numbers.items()
    }


def test_an_older_tokenizer_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(UserError, match=r"the tokenizer in .* cannot be read \("):
        tokens_of(tmp_path)


def test_a_folder_without_a_tokenizer_has_no_tokens(tmp_path: Path) -> None:
    assert tokens_of(tmp_path) == {}


def test_a_large_vocabulary_takes_no_more_rows_than_asked() -> None:
    ours = {number: str(number) for number in range(100)}
    assert difference(ours, ours | {70: "x"}, 70) == ""
    assert difference(ours, ours | {70: "x"}, 71) == "its token 70 is '70', the model's is 'x'"


def test_penalties_and_bias_reach_tokens_beyond_those_it_may_guess(tmp_path: Path) -> None:
    """Settings may name any token of the target."""
    for name in ("small", "target"):
        folder_with(tmp_path / name, WORDS)
    network = pair(tmp_path, 56, 61)
    ask = Sampling(
        temperature=0.7, seed=1, repetition_penalty=1.2, logit_bias=((58, 5.0), (7, 50.0))
    )
    text = [*PROMPT, 57]
    draft = Incremental(network, Calibration(), width=5).open(text, ask)
    tree = Tree(len(text) - 1, text[-1])
    with torch.inference_mode():
        (told,) = heads.said(draft.expand([tree.lineage(tree.root)]))
    assert told[0].token == 7
