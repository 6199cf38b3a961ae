"""The sets of prompts that are only measured with, as their README describes them."""

import re
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from processes import model_folder

from gardener.evaluation.datasets import read_conversations
from gardener.holder.prompter import Prompter

FOLDER = Path(__file__).parents[2] / "benchmarks" / "prompts"
COUNTS = {"news": 16, "letters": 20, "explain": 20}
TOKENS = {"news": (600, 1500), "letters": (15, 80), "explain": (10, 60)}


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    return Prompter(model_folder())


def prompts(name: str) -> list[str]:
    """The rows of a set, which have one turn each."""
    rows = read_conversations([FOLDER / f"{name}.jsonl"], None)
    assert {len(row.turns) for row in rows} == {1}
    return [row.turns[0] for row in rows]


def words(text: str) -> tuple[str, ...]:
    """What is alike if only its case, marks and spaces differ."""
    return tuple(re.findall(r"\w+", text.lower()))


def test_every_set_has_as_many_prompts_as_its_readme_says() -> None:
    assert {name: len(prompts(name)) for name in COUNTS} == COUNTS
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == set(COUNTS)


def test_no_two_prompts_are_alike_and_none_is_one_of_our_own() -> None:
    own = [words(turn) for row in read_conversations([], None) for turn in row.turns]
    written = [words(text) for name in COUNTS for text in prompts(name)]
    assert len(set(written)) == len(written) == sum(COUNTS.values())
    assert not set(written) & set(own)


def test_no_paragraph_of_the_news_stands_there_twice() -> None:
    articles = [set(text.split("\n\n")) for text in prompts("news")]
    assert all(len(text.split("\n\n")) == len(set(text.split("\n\n"))) for text in prompts("news"))
    assert not [one & other for one, other in combinations(articles, 2) if one & other]


@pytest.mark.parametrize("name", COUNTS)
def test_prompts_are_as_long_as_said(name: str, prompter: Prompter) -> None:
    least, most = TOKENS[name]
    lengths = [len(prompter.tokens(text)) for text in prompts(name)]
    assert least <= min(lengths)
    assert max(lengths) <= most
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    said = f"| {COUNTS[name]} | {min(lengths):,} to {max(lengths):,} |"
    assert f"| `{name}.jsonl` {said}" in readme


def test_news_are_spread_over_their_range(prompter: Prompter) -> None:
    lengths = sorted(len(prompter.tokens(text)) for text in prompts("news"))
    assert sum(length < 800 for length in lengths) >= 5
    assert sum(length > 1300 for length in lengths) >= 3
    assert max(b - a for a, b in pairwise(lengths)) < 150
