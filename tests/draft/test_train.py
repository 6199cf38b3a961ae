"""Training a head: what it is trained on, towards what, and that it can be interrupted."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import heads
import pytest
import tiny
import torch
import torch.nn.functional as F

from gardener.decoding.tree import Tree
from gardener.draft.calibration import IDENTITY, Calibration
from gardener.draft.eagle_files import load_eagle
from gardener.draft.incremental import Incremental
from gardener.draft.train import chunks, report
from gardener.draft.train.chunks import Text
from gardener.draft.train.dialogue import (
    ANSWER,
    TEMPLATE,
    USER,
    Dialogue,
    Script,
    Style,
    read_openings,
    written,
)
from gardener.draft.train.evaluate import DEPTHS, observe
from gardener.draft.train.export import read_head, write_head
from gardener.draft.train.head import DraftHead, cross_entropy
from gardener.draft.train.muon import orthogonal
from gardener.draft.train.objective import WEIGHT, batches, borrow, collate, loss, passes
from gardener.draft.train.plan import Plan
from gardener.draft.train.run import TrainingRun
from gardener.draft.train.vocabulary import coverage, likeliest
from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.batch_decoder import Kept
from gardener.model.loader import Whole, load_whole
from gardener.model.tensors import pack

SCRIPT = Script(opening=(50, 51), answering=(52, 53), asking=(52, 54, 51), ends=frozenset({52, 0}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("smollm", folder)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> Whole:
    return load_whole(folder, dtype="float32", device="cpu")


def _perform(drawn: Sequence[int], asked: Sequence[Sequence[int]] = ()) -> Dialogue:
    """A dialogue for which these tokens are drawn, whoever's turn it is."""
    lines = written(SCRIPT, Style(rounds=1), 40, random.Random(1), asked)
    fed = [next(lines)]
    turns = (53,) if asked else (51, 53)  # after these, a turn begins that is drawn
    supply = iter(drawn)
    last = -1
    try:
        while True:
            # Tokens drawn within given text are of no interest: a marker that must not show up.
            token = 60
            if fed[-1][0] in turns or fed[-1][0] == last != 52:
                token = last = next(supply)
            fed.append(lines.send(token))
    except StopIteration as end:
        made: Dialogue = end.value
        return made


def test_the_model_writes_both_sides_within_the_template() -> None:
    made = _perform([1, 2, 3, 52, 4, 5, 52])
    assert made.tokens == [50, 51, 1, 2, 3, 52, 53, 4, 5]
    assert made.roles == [TEMPLATE] * 2 + [USER] * 3 + [TEMPLATE] * 2 + [ANSWER] * 2


def test_a_turn_goes_on_from_given_first_words() -> None:
    script = replace(SCRIPT, openings=((7, 8),))
    lines = written(script, Style(rounds=1, opened=1.0), 40, random.Random(1))
    assert next(lines) == (51, 2.0)
    fed = [lines.send(60)[0], lines.send(60)[0], lines.send(9)[0], lines.send(52)[0]]
    assert fed == [7, 8, 9, 52]


def test_openings_are_read_from_a_file_or_from_the_package(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("# what for\nWrite a\ndef f:\\n\n")
    assert read_openings(tmp_path / "mine.txt") == ["Write a", "def f:\n"]
    assert len(read_openings(None)) > 100
    with pytest.raises(UserError, match="--openings"):
        read_openings(tmp_path / "none.txt")


def test_given_turns_are_recited_and_only_answers_drawn() -> None:
    made = _perform([4, 52, 6, 52], asked=[[1, 2], [3]])
    assert made.tokens == [50, 51, 1, 2, 52, 53, 4, 52, 54, 51, 3, 52, 53, 6]
    assert [role for role in made.roles if role == ANSWER] == [ANSWER] * 2


def test_a_turn_without_end_is_cut() -> None:
    lines = written(SCRIPT, Style(rounds=1, asked=3, answered=4), 40, random.Random(1))
    next(lines)
    for token in range(1, 10):
        lines.send(token)
    with pytest.raises(StopIteration) as end:
        lines.send(10)
    made = end.value.value
    assert made.roles == [TEMPLATE] * 2 + [USER] * 3 + [TEMPLATE] * 2 + [ANSWER] * 4


def _texts(shape: Architecture, lengths: Sequence[int], taps: int = 1) -> list[Text]:
    source = torch.Generator().manual_seed(5)
    return [
        Text(
            torch.randint(shape.vocab, (n,), generator=source, dtype=torch.int32),
            torch.tensor([TEMPLATE] * 2 + [USER] * 2 + [TEMPLATE] + [ANSWER] * (n - 5)).byte(),
            *_kept(n, taps * shape.width, shape.vocab, source),
        )
        for n in lengths
    ]


def _kept(tokens: int, width: int, vocab: int, source: torch.Generator | None = None) -> Kept:
    """Something that might have been kept of a text."""
    odds = torch.softmax(torch.randn(tokens, vocab, generator=source), -1)
    top, likely = odds.topk(min(4, vocab), -1)
    return Kept(torch.randn(tokens, width, generator=source), likely.int(), top.half())


def test_chunks_come_back_as_they_were_and_only_for_what_they_were_made(tmp_path: Path) -> None:
    made = [Dialogue([1, 2, 3], [0, 1, 2], _kept(3, 4, 9)), Dialogue([4], [2], _kept(1, 4, 9))]
    path = tmp_path / "folder" / "chunk.safetensors"
    chunks.write(path, made, {"model": "a"})
    back = chunks.read(path, {"model": "a"})
    assert [text.tokens.tolist() for text in back] == [[1, 2, 3], [4]]
    assert [text.roles.tolist() for text in back] == [[0, 1, 2], [2]]
    for text, dialogue in zip(back, made, strict=True):
        assert dialogue.kept is not None
        for name, tensor in dialogue.kept._asdict().items():
            assert torch.equal(getattr(text, name), tensor)
    with pytest.raises(UserError, match="model a, not b"):
        chunks.read(path, {"model": "b"})
    path.write_bytes(b"short")
    with pytest.raises(UserError, match="take it away"):
        chunks.read(path, {})


def test_a_batch_knows_what_follows_and_where_nothing_can_be_guessed(whole: Whole) -> None:
    texts = _texts(whole.architecture, [9, 7])
    batch = collate(texts)
    for text, at, weight, following in zip(
        batch.text.tolist(), batch.at.tolist(), batch.weights.tolist(), batch.next.tolist(),
        strict=True,
    ):  # fmt: skip
        tokens = texts[text].tokens.tolist()
        assert following == (tokens[at + 1] if at + 1 < len(tokens) else -1)
        assert at >= 2  # the user's first token
        assert weight == WEIGHT[ANSWER if at >= 4 else USER]  # 4: the template's last token
    assert len(batch.at) == (9 - 2) + (7 - 2)
    assert [len(b.tokens) for b in batches(texts, 9)] == [1, 1]
    assert [len(b.tokens) for b in batches(texts, 18)] == [2]


def test_the_loss_and_its_gradient_are_those_of_plain_cross_entropy() -> None:
    source = torch.Generator().manual_seed(2)
    rows = torch.randn(700, 16, generator=source, requires_grad=True)
    matrix = torch.randn(40, 16, generator=source)
    targets = torch.softmax(torch.randn(700, 40, generator=source), -1)
    weights = torch.rand(700, generator=source)
    ours = cross_entropy(rows, matrix, targets, weights)
    (slope,) = torch.autograd.grad(3 * ours, rows)
    plain = (F.cross_entropy(rows @ matrix.T, targets, reduction="none") * weights).sum()
    (expected,) = torch.autograd.grad(3 * plain, rows)
    assert torch.allclose(ours, plain, rtol=1e-5)
    assert torch.allclose(slope, expected, atol=1e-5)


def _moved(head: DraftHead) -> DraftHead:
    """A head as it might be after training: all of its weights are something."""
    source = torch.Generator().manual_seed(3)
    for parameter in head.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=source)
    return head


@pytest.mark.parametrize(("taps", "induction"), [(1, 0), (1, 2), (3, 0)])
def test_a_pass_sees_true_features_only_up_to_its_row(
    whole: Whole, taps: int, induction: int
) -> None:
    """What pass k guesses after token p must not change with features from p - k on."""
    target = borrow(whole, torch.arange(0, 60, 2))
    head = _moved(DraftHead(whole.architecture, taps, 24, induction))
    (text,) = _texts(whole.architecture, [12], taps)
    steps = 5
    batch = collate([text])
    changed = text.features.clone()
    changed[6] += 1.0
    before = list(passes(head, target, batch, steps))
    after = list(passes(head, target, collate([text._replace(features=changed)]), steps))
    for k, (first, second) in enumerate(zip(before, after, strict=True)):
        at = batch.at[first.places]
        assert at.tolist() == [a for a in batch.at.tolist() if a - 1 - k >= 0]
        same = (first.outputs - second.outputs).abs().amax(-1) < 1e-6
        assert same.tolist() == (at - 1 - k < 6).tolist(), k


def test_a_share_of_the_rows_gives_the_same_for_its_places(whole: Whole) -> None:
    target = borrow(whole, torch.arange(0, 60, 2))
    head = _moved(DraftHead(whole.architecture, 1, 24, 1))
    batch = collate(_texts(whole.architecture, [30, 22]))
    torch.manual_seed(7)
    for k, (all_of_them, some) in enumerate(
        zip(passes(head, target, batch, 5), passes(head, target, batch, 5, 0.4), strict=True)
    ):
        expected = dict(zip(all_of_them.places.tolist(), all_of_them.outputs, strict=True))
        assert len(some.places) == len(expected) if k == 0 else 0 < len(some.places) < len(expected)
        for place, output in zip(some.places.tolist(), some.outputs, strict=True):
            assert torch.allclose(output, expected[place], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "induction"), [("smollm", 0), *((kind, 1) for kind in tiny.CONFIGS)]
)
def test_the_drafter_guesses_what_was_trained(kind: str, tmp_path: Path, induction: int) -> None:
    """From features up to one place, and along the true tokens after it, as pass after pass; for
    targets of every family."""
    folder = tmp_path / "target"
    tiny.make(kind, folder)
    whole = load_whole(folder, dtype="float32", device="cpu")
    kept = torch.arange(0, 60, 2)
    head = _moved(DraftHead(whole.architecture, 1, 24, induction))
    for parameter in head.parameters():
        parameter.data = parameter.data.bfloat16().float()  # as it will be stored
    write_head(tmp_path, head, kept, (whole.architecture.layers,), "of a test")
    network = load_eagle(tmp_path, folder, dtype="float32", device="cpu")
    (text,) = _texts(whole.architecture, [12])
    tokens, target = text.tokens.tolist(), borrow(whole, kept)
    draft = Incremental(network, Calibration(), width=6).open(tokens[:6])
    draft.settle((), [pack(text.features[:5])])
    tree = Tree(5, tokens[5])
    path = tree.lineage(tree.root)
    batch = collate([text])
    for k, (outputs, places) in enumerate(passes(head, target, batch, 5)):
        (row,) = (batch.at[places] == 5 + k).nonzero().squeeze(1)
        odds = torch.softmax(target.matrix @ outputs[row], -1)
        best, guesses = odds.topk(6)
        (given,) = heads.said(draft.expand([path]))
        assert [guess.token for guess in given] == kept[guesses].tolist(), k
        assert torch.allclose(torch.tensor([g.probability for g in given]), best, atol=1e-4), k
        path = [*path, tree.graft(path[-1].id, tokens[6 + k], 0.0)]


def test_induction_heads_look_for_what_is_like_the_row(whole: Whole) -> None:
    """Untrained, they turn to the row after an earlier one that was the same."""
    torch.manual_seed(1)
    head = DraftHead(whole.architecture, 1, 24, 1)
    x = torch.randn(1, 9, 2 * whole.architecture.width)
    x[:, 7] = x[:, 2]
    size, own = (
        whole.architecture.head_dim,
        whole.architecture.kv_heads * whole.architecture.head_dim,
    )
    key = head.midlayer["self_attn"]["k_proj"](x)[0, :, own:]
    query = head.midlayer["self_attn"]["q_proj"](x)[0, :, -size:]
    seen = torch.cat((torch.zeros(1, size), key[:-1]))  # by each row: that of the one before
    assert int((seen @ query[7])[:8].argmax()) == 3


def test_a_head_may_get_induction_heads_and_guesses_as_before(
    whole: Whole, folder: Path, tmp_path: Path
) -> None:
    run = _run(tmp_path, folder, _plan(induction=0))
    run._one_chunk(0)
    run.save()
    texts = run.held_out()
    before = observe(run.trainer.head, run.trainer.target, texts, 256)
    grown = _run(tmp_path, folder, _plan(induction=2))
    assert grown.trainer.head.induction == 2
    after = observe(grown.trainer.head, grown.trainer.target, texts, 256)
    assert torch.allclose(after.log_q, before.log_q, atol=1e-5)
    grown._one_chunk(1)
    grown.save()
    again = _run(tmp_path, folder, _plan(induction=1))  # none is taken away
    assert again.trainer.head.induction == 2
    assert read_head(tmp_path, whole.architecture, induction=3)[0].induction == 3


def test_orthogonal_steps_have_all_directions_alike() -> None:
    source = torch.Generator().manual_seed(4)
    for shape in ((24, 60), (60, 24)):
        matrix = torch.randn(shape, generator=source)
        values = torch.linalg.svdvals(orthogonal(matrix))
        assert 0.5 < float(values.min()) < float(values.max()) < 1.5


def test_training_lowers_the_loss(whole: Whole) -> None:
    torch.manual_seed(0)
    target = borrow(whole, torch.arange(40))
    head = DraftHead(whole.architecture, 1, 24)
    batch = collate(_texts(whole.architecture, [30, 25]))
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-2)
    values = []
    for _ in range(30):
        value, means = loss(head, target, batch, 5, 0.9)
        assert len(means) == 5
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        values.append(float(value.detach()))
    assert values[-1] < 0.8 * values[0]


def test_the_vocabulary_is_what_the_model_finds_likely(whole: Whole) -> None:
    texts = _texts(whole.architecture, [30, 20])
    kept = likeliest(torch.arange(whole.architecture.vocab), texts, 20)
    sums = [0.0] * whole.architecture.vocab
    for text in texts:
        for tokens, odds in zip(text.likely[5:].tolist(), text.odds[5:].tolist(), strict=True):
            for token, odd in zip(tokens, odds, strict=True):
                sums[token] += odd
    best = sorted(range(len(sums)), key=lambda token: -sums[token])[:20]
    assert kept.tolist() == sorted(best)
    fewer = likeliest(torch.tensor(sorted(best[5:])), texts, 5)
    assert fewer.tolist() == sorted(best[5:10])
    assert coverage(texts, torch.arange(whole.architecture.vocab)) == 1.0
    assert coverage(texts, torch.arange(0)) == 0.0


def _plan(**changes: Any) -> Plan:
    sizes: dict[str, Any] = {
        "vocab": 32, "inner": 24, "chunk": 300, "lanes": 4, "room": 64, "batch": 256, "hours": 1.0,
    }  # fmt: skip
    return Plan(**(sizes | changes))


def _run(out: Path, model: Path, plan: Plan, **options: Any) -> TrainingRun:
    return TrainingRun(
        out, model, plan, SCRIPT, lambda *what: None, dtype="float32", device="cpu", **options
    )


def test_a_run_goes_on_where_it_was_interrupted(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "head"
    run = _run(out, folder, _plan())
    for index in range(2):
        run._one_chunk(index)
    run.save()
    weights = {name: p.clone() for name, p in run.trainer.head.state_dict().items()}
    again = _run(out, folder, _plan())
    assert again.progress.chunks == 2
    assert again.progress.tokens == run.progress.tokens
    assert again.seconds >= run.progress.seconds
    assert torch.equal(again.kept, run.kept)
    for name, p in again.trainer.head.state_dict().items():
        assert torch.equal(p, weights[name])
    again._one_chunk(2)
    assert [path.name for path in again.corpus.chunks()] == [
        f"chunk-{index:05d}.safetensors" for index in range(3)
    ]


def test_a_report_says_how_good_the_head_is_and_by_which_commands(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(report, "draw", lambda path, facts: drawn.append(path))
    run = _run(tmp_path, folder, _plan())
    run._one_chunk(0)
    for command in ("train-draft --hours 1", "train-draft --hours 2", "train-draft --hours 2"):
        report.finish(run, "tiny", command)
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["commands"] == ["train-draft --hours 1", "train-draft --hours 2"]
    assert facts["tokens_written"] == run.progress.written >= 300
    assert len(facts["first_guess_right"]) == DEPTHS
    page = (tmp_path / "report.md").read_text()
    assert page.startswith("# A draft head for tiny\n\n    train-draft --hours 1\n    train-draft")
    assert f"| 1 | {facts['first_guess_right'][0]:.1%} |" in page
    assert Calibration.read(tmp_path / "calibration.json").weights.tolist() != list(IDENTITY)
    assert drawn == [tmp_path / "acceptance.png"] * 3


def test_a_run_can_go_on_with_fewer_tokens(folder: Path, tmp_path: Path) -> None:
    run = _run(tmp_path, folder, _plan())
    run._one_chunk(0)
    run.save()
    again = _run(tmp_path, folder, _plan(vocab=16))
    assert len(again.kept) == 16
    assert set(again.kept.tolist()) < set(run.kept.tolist())
    again._one_chunk(1)
    again.save()
    assert torch.equal(read_head(tmp_path, again.whole.architecture)[1], again.kept)


def test_a_run_can_start_from_a_head(folder: Path, tmp_path: Path) -> None:
    first = _run(tmp_path / "first", folder, _plan())
    first._one_chunk(0)
    first.save()
    second = _run(tmp_path / "second", folder, _plan(seed=2), start=tmp_path / "first")
    assert torch.equal(second.kept, first.kept)
    for ours, theirs in zip(
        first.trainer.head.parameters(), second.trainer.head.parameters(), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3)  # it was stored in 16 bits
    with pytest.raises(UserError, match="has taps"):
        _run(tmp_path / "third", folder, _plan(taps=(0, 2)), start=tmp_path / "first")


def test_old_chunks_go_and_held_out_dialogues_stay(folder: Path, tmp_path: Path) -> None:
    run = _run(tmp_path, folder, _plan(keep=2))
    held_out = run.held_out()
    for index in range(4):
        run._one_chunk(index)
    assert [path.stem for path in run.corpus.chunks()] == ["chunk-00002", "chunk-00003"]
    seen = observe(run.trainer.head, run.trainer.target, held_out, 256)
    assert len(seen.curve(1)) == DEPTHS
    assert all(
        0 <= one <= four <= 1 for one, four in zip(seen.curve(1), seen.curve(4), strict=True)
    )
    log_q, rank, depth, hit = seen.flat()
    assert len(log_q) == len(rank) == len(depth) == len(hit) == seen.log_q.numel()


def test_foreign_heads_are_not_trained_further(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="only heads that `train-draft` wrote"):
        read_head(tmp_path, Architecture.read(folder))


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"steps": 4}, "steps is 4"), ({"hours": 0.0}, "hours"), ({"passes": 0.5}, "passes")],
)
def test_plans_are_checked(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        Plan(**changes)
