"""Guesses are ranked as the target picks: with its noise, its bias, penalties and cuts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import heads
import numpy as np
import pytest
import sampled
import tiny
import torch
from torch import Tensor

from gardener.decoding.tree import Tree
from gardener.draft import ranking
from gardener.draft.calibration import Calibration
from gardener.draft.incremental import Incremental
from gardener.draft.ranking import Ranking, at_once, row_by_row
from gardener.draft.small_model import SmallModel
from gardener.model.noise import Noise
from gardener.protocol.sampling import GREEDY, Sampling

VOCAB = 61
PROMPT = [3, 1, 4, 1, 5]
TEXT = [*PROMPT, 9, 2, 9]
PATHS: list[list[int]] = [[], [7], [7, 7], [9, 3, 3], [11], [3, 1, 4]]

SAMPLINGS = {
    "cold": Sampling(0.1, seed=1),
    "cool": Sampling(0.7, seed=2),
    "warm": Sampling(1.0, seed=3),
    "hot": Sampling(3.0, seed=4),
    "top-k": Sampling(1.0, top_k=5, seed=5),
    "one": Sampling(1.0, top_k=1, seed=6),
    "top-p": Sampling(1.0, top_p=0.9, seed=7),
    "little": Sampling(2.0, top_p=0.2, seed=8),
    "min-p": Sampling(1.5, min_p=0.1, seed=9),
    "all cuts": Sampling(1.0, top_p=0.8, top_k=9, min_p=0.02, seed=10),
    "repetition": Sampling(repetition_penalty=1.3),
    "frequency": Sampling(frequency_penalty=0.7, presence_penalty=-1.0),
    "bias": Sampling(logit_bias=((7, 2.0), (60, -3.0))),
    "no end yet": Sampling(min_tokens=5, eos=(3, 9)),
    "everything": Sampling(
        0.8, 0.9, 20, 0.01, 1.2, 0.3, 0.2, ((7, 1.0),), 11, min_tokens=5, eos=(3, 9)
    ),
}


def logits(rows: int, places: int = VOCAB, seed: int = 0) -> Tensor:
    return 2 * torch.randn(rows, places, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_who_knows_the_law_of_the_target_guesses_its_pick_first(sampling: Sampling) -> None:
    made = Ranking(sampling, None, len(PROMPT))
    text = list(TEXT)
    for turn in range(40):
        given = logits(len(PATHS), seed=turn)
        tokens, _ = made.best(given.clone(), 3, text, PATHS)
        for row, path, first in zip(given.double().numpy(), PATHS, tokens[:, 0], strict=True):
            assert first == sampled.pick(row, sampling, [*text, *path], len(PROMPT))
        text += [turn % VOCAB] * (turn % 3)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 2.0])
def test_the_odds_of_guesses_are_those_of_logits_and_noise(temperature: float) -> None:
    given = logits(len(PATHS))
    tokens, log_q = Ranking(Sampling(temperature, seed=7), None, 5).best(
        given.clone(), 8, TEXT, PATHS
    )
    for row, path, named, said in zip(given.double(), PATHS, tokens, log_q, strict=True):
        noise = Noise(7).row(len(TEXT) + len(path), VOCAB).astype(float)
        odds = sampled.odds(row.numpy() + temperature * noise)
        best = np.argsort(-odds)[:8]
        assert named.tolist() == best.tolist()
        assert said.exp().numpy() == pytest.approx(odds[best], rel=1e-4)


def test_the_guesses_of_a_small_vocabulary_have_the_noise_of_their_tokens() -> None:
    kept = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(1))[:24]
    given, sampling = logits(len(PATHS), 24), Sampling(1.0, seed=3)
    tokens, _ = Ranking(sampling, kept, 5).best(given.clone(), 5, TEXT, PATHS)
    for row, path, named in zip(given.double().numpy(), PATHS, tokens.tolist(), strict=True):
        whole = np.full(VOCAB, -np.inf)
        whole[kept.numpy()] = row
        assert named[0] == sampled.pick(whole, sampling, [*TEXT, *path], 5)
        assert set(named) <= set(kept.tolist())


@pytest.mark.parametrize("name", ["bias", "repetition", "frequency", "no end yet"])
def test_a_small_vocabulary_is_changed_where_its_tokens_are(name: str) -> None:
    kept = torch.tensor([60, 3, 9, 7, 11, 2, 40])
    made = Ranking(SAMPLINGS[name], kept, 5)
    for turn in range(20):
        given = logits(len(PATHS), len(kept), seed=turn)
        tokens, _ = made.best(given.clone(), 2, TEXT, PATHS)
        for row, path, first in zip(given.double().numpy(), PATHS, tokens[:, 0], strict=True):
            whole = np.full(VOCAB, -1e6)
            whole[kept.numpy()] = row
            assert first == sampled.pick(whole, SAMPLINGS[name], [*TEXT, *path], 5)


@pytest.mark.parametrize("kept", [None, torch.arange(VOCAB).flip(0)])
def test_nothing_changes_where_the_likeliest_token_is_picked(
    kept: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "Noise", None)
    given = 10 * logits(len(PATHS))  # some of the guesses are next to impossible
    for sampling in (GREEDY, Sampling(seed=3), Sampling(top_p=0.5, top_k=2)):
        tokens, log_q = Ranking(sampling, kept, 5).best(given.clone(), 8, TEXT, PATHS)
        best, places = torch.log_softmax(given, -1).topk(8, -1)
        assert torch.equal(log_q, best)
        assert torch.equal(tokens, places if kept is None else kept[places])


def test_who_does_not_know_the_seed_guesses_what_is_likeliest() -> None:
    given = logits(len(PATHS))
    told, _ = Ranking(Sampling(1.0), None, 5).best(given.clone(), 8, TEXT, PATHS)
    likeliest, _ = Ranking(GREEDY, None, 5).best(given.clone(), 8, TEXT, PATHS)
    assert torch.equal(told, likeliest)


def test_odds_stay_numbers_when_hardly_a_token_may_come() -> None:
    sampling = Sampling(100.0, top_k=1, seed=3, min_tokens=9, eos=tuple(range(1, VOCAB)))
    _, log_q = Ranking(sampling, None, 5).best(logits(len(PATHS)), 8, TEXT, PATHS)
    chance = Calibration().probabilities(log_q.double().numpy(), np.arange(8.0)[None], np.array(0))
    assert np.isfinite(chance).all()


def test_paths_do_not_know_of_each_other() -> None:
    """The penalty of a token counts on the path that has it, and goes with the path."""
    sampling = Sampling(frequency_penalty=3.0)
    made = Ranking(sampling, None, 5)
    given = torch.zeros(1, VOCAB)
    given[0, 7], given[0, 8], given[0, 10] = 10.0, 8.0, 5.0

    def first(*path: int) -> int:
        return int(made.best(given.clone(), 1, TEXT, [path])[0])

    assert [first(), first(7), first(7, 7), first(7, 8)] == [7, 8, 8, 7]
    assert [first(8), first()] == [7, 7]


# --- through a whole drafter -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["cool", "all cuts", "everything", "repetition"])
def test_a_drafter_that_is_the_target_is_always_right(name: str, tmp_path: Path) -> None:
    model, sampling = tiny.make("llama", tmp_path), SAMPLINGS[name]
    network = SmallModel(tmp_path, tmp_path, dtype="float32", device="cpu")
    draft = Incremental(network, Calibration()).open(PROMPT, sampling)
    text, tree = list(PROMPT), Tree(len(PROMPT) - 1, PROMPT[-1])

    def picked(text: Sequence[int]) -> int:
        row = tiny.last_logits(model, text).double().numpy()
        return sampled.pick(row, sampling, text, len(PROMPT))

    for _ in range(8):
        node = tree[tree.root]
        for _ in range(4):  # a chain of first guesses, from the root down
            path = tree.lineage(node.id)
            (guesses,) = heads.said(draft.expand([path]))
            assert guesses[0].token == picked([*text, *(each.token for each in path[1:])])
            node = tree.graft(node.id, guesses[0].token, 0.0)
        accepted = tree.lineage(node.id)[1:3]
        for each in accepted:
            tree.advance(each.token)
            text.append(each.token)
        draft.settle(accepted, ())


@pytest.mark.parametrize("some", [False, True])
def test_noise_is_added_at_once_as_row_by_row(some: bool) -> None:
    source = torch.Generator().manual_seed(1)
    noise = torch.randn(3, 9, generator=source)
    places = torch.randint(9, (3, 4), generator=source) if some else None
    logits = torch.randn(3, 4 if some else 9, generator=source)
    other = logits.clone()
    row_by_row(logits, places, list(noise))
    at_once(other, places, list(noise))
    assert torch.equal(logits, other)
