"""The age of a guess: how many of its drafter's own steps lie since the last true feature."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import heads
import numpy as np
import pytest
import torch
from test_eagle import PROMPT, Play, build

from gardener.decoding.tree import Guess, Node
from gardener.draft.calibration import Calibration
from gardener.draft.incremental import Incremental

BY_AGE = np.array([-3.0, 0.0, 0.0, 0.0, -0.5, 0.0, 0.0, 0.0])
"""A map in which the chance of a guess follows from its age alone."""


def chance(age: int) -> float:
    """Of a guess, by that map."""
    return float(1 / (1 + np.exp(3.0 + 0.5 * np.log1p(age))))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def play(tmp_path: Path) -> Play:
    made = Play(*build("eagle3", tmp_path), seed=3)
    made.drafter = Incremental(made.head, Calibration(BY_AGE), width=4)
    made.draft = made.drafter.open(PROMPT)
    made.prefill()
    return made


def ask(play: Play, path: Sequence[Node]) -> tuple[Guess, ...]:
    (guesses,) = heads.said(play.draft.expand([path]))
    return guesses


def ages(play: Play, path: Sequence[Node]) -> list[int]:
    """Of the guesses at each node of a path, the root first."""
    told = [ask(play, path[: end + 1])[0].probability for end in range(len(path))]
    by_chance = {round(chance(age), 9): age for age in range(12)}
    return [by_chance[round(each, 9)] for each in told]


def chain(play: Play, *tokens: int) -> list[Node]:
    """Below the root."""
    path = [play.tree[play.tree.root]]
    for token in tokens:
        path.append(play.tree.graft(path[-1].id, token, 0.0))
    return path


def accept(play: Play, *tokens: int) -> None:
    nodes = []
    for token in tokens:
        play.tree.advance(token)
        nodes.append(play.tree[play.tree.root])
    play.draft.settle(nodes, play.feel(len(tokens)))


def test_a_guess_is_the_older_the_deeper_it_is_drafted(play: Play) -> None:
    assert ages(play, chain(play, 10, 11, 12, 13)) == [0, 1, 2, 3, 4]
    assert ages(play, chain(play, 20, 21)) == [0, 1, 2]


def test_new_features_make_the_root_young_and_leave_what_is_below_it_as_old_as_it_was(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Calibration, "observe", lambda self, *what: None)  # the map alone
    path = chain(play, 10, 11, 12, 13)
    assert ages(play, path) == [0, 1, 2, 3, 4]
    accept(play, 10, 11)
    assert ages(play, path[2:]) == [0, 3, 4]  # computed on what was there before
    assert ages(play, chain(play, 12, 13, 14)) == [0, 3, 4, 5]
    assert ages(play, chain(play, 30, 31)) == [0, 1, 2]


def test_what_came_of_guesses_counts_for_guesses_of_their_age(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[tuple[int, int | None]] = []

    def observe(self: Calibration, chances: object, depth: int, hit: int | None) -> None:
        learnt.append((depth, hit))

    monkeypatch.setattr(Calibration, "observe", observe)
    path = chain(play)
    for rank in (2, 1):
        token = ask(play, path)[rank].token
        path.append(play.tree.graft(path[-1].id, token, 0.0))
    named = [guess.token for guess in ask(play, path)]
    other = next(token for token in range(61) if token not in named)
    accept(play, *(node.token for node in path[1:]), other)
    assert learnt == [(0, 2), (1, 1), (2, None)]


def test_a_text_in_which_old_guesses_fail_makes_old_guesses_less_likely(play: Play) -> None:
    path = chain(play, 10, 11, 12)
    before = [ask(play, path[: end + 1])[0].probability for end in range(4)]
    for _ in range(200):
        play.drafter.calibration.observe(np.full(4, 0.25), 3, None)
    after = [ask(play, path[: end + 1])[0].probability for end in range(4)]
    assert after[:2] == pytest.approx(before[:2])
    assert after[3] < 0.5 * before[3]
