"""Drafting by recorded work guesses what drafting without does, whatever texts come and go.

The stand-in for the recorder sees to it that each replay reads the same addresses in the same
sizes as when it was recorded, as it must on a device.
"""

import gc
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import heads
import pytest
import recorders
import test_draft_model
import test_eagle
import tiny
import torch
from torch import Tensor

from gardener.decoding.tree import Tree
from gardener.draft.calibration import Calibration
from gardener.draft.device import seats, steps
from gardener.draft.device.rows import RecordedRows
from gardener.draft.drafter import Draft
from gardener.draft.eagle_files import load_eagle
from gardener.draft.factory import DraftSettings, drafters
from gardener.draft.incremental import Incremental, IncrementalDraft
from gardener.draft.network import DraftNetwork
from gardener.model import kv_cache
from gardener.model.checkpoint.table import FloatTable
from gardener.model.device.graphs import Graphs
from gardener.model.tensors import pack
from gardener.protocol.sampling import Sampling

WIDTH = 6


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities as the network gives them."""
    monkeypatch.setattr(Calibration, "corrected", lambda self, chance, *where: chance)


@pytest.fixture(params=["induction", "model"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> DraftNetwork:
    if request.param == "model":
        return test_draft_model.Play("qwen2-sliding", tmp_path).network
    return test_eagle.build(request.param, tmp_path)[0]


@pytest.fixture
def head(tmp_path: Path) -> DraftNetwork:
    return test_eagle.build("induction", tmp_path)[0]


class Story:
    """A text that two drafts are told and asked about, which are to say the same. All of it is
    drawn by chance, so two stories with one seed are the same, whatever is said."""

    def __init__(self, drafts: list[Draft], prompt: list[int], taps: int, seed: int) -> None:
        self.drafts, self.taps = drafts, taps
        self.chance = random.Random(seed)
        self.source = torch.Generator().manual_seed(seed)
        self.tree = Tree(len(prompt) - 1, prompt[-1])
        self.last: list[Any] = []  # what was said last

    @classmethod
    def begun(cls, drafters: list[Incremental], length: int, seed: int, **how: Any) -> "Story":
        """With a prompt of this length, which is computed."""
        chance = random.Random(-seed)
        prompt = [chance.randrange(61) for _ in range(length)]
        taps = len(drafters[0].taps)
        story = cls([each.open(prompt, **how) for each in drafters], prompt, taps, seed)
        story.settle([], length - 1)
        return story

    def settle(self, nodes: list[Any], rows: int) -> None:
        features = torch.randn(rows, self.taps * 32, generator=self.source)
        parts = [pack(part) for part in features.chunk(self.taps, -1)] if self.taps else []
        for draft in self.drafts:
            draft.settle(nodes, parts)

    def ask(self, *nodes: int) -> None:
        paths = [self.tree.lineage(node) for node in nodes]
        first, *others = (heads.said(draft.expand(paths)) for draft in self.drafts)
        for other in others:
            for mine, theirs in zip(first, other, strict=True):
                assert [g.token for g in mine] == [g.token for g in theirs]
                due = [pytest.approx(g.probability, abs=1e-4) for g in theirs]
                assert [g.probability for g in mine] == due
        self.last = first

    def grow(self) -> None:
        """Some branches by chance, and questions about any nodes."""
        for _ in range(3):
            parent = self.chance.choice(list(self.tree)).id
            for _ in range(self.chance.randrange(1, 4)):
                parent = self.tree.graft(parent, self.chance.randrange(61), 0.0).id
        nodes = [node.id for node in self.tree]
        self.ask(*self.chance.sample(nodes, min(len(nodes), self.chance.choice((1, 3, 7)))))

    def advance(self) -> None:
        """Accept a branch, or part of it, or what is not there."""
        nodes = []
        for _ in range(self.chance.randrange(1, 4)):
            children = [n.token for n in self.tree if n.parent == self.tree.root]
            known = children and self.chance.random() < 0.8
            token = self.chance.choice(children) if known else self.chance.randrange(61)
            self.tree.advance(token)
            nodes.append(self.tree[self.tree.root])
        self.settle(nodes, len(nodes))

    def go_on(self, turns: int) -> None:
        for _ in range(turns):
            self.grow()
            self.grow()
            self.advance()
            if self.chance.random() < 0.5:
                self.ask(self.tree.root)


def pair(network: DraftNetwork) -> tuple[list[Incremental], recorders.Replaying]:
    """A drafter by recorded work, one without, and what was recorded."""
    recorder = recorders.Replaying()
    recorded = Incremental(network, Calibration(), WIDTH, recorder=recorder)
    return [recorded, Incremental(network, Calibration(), WIDTH)], recorder


# --- the same guesses ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", test_eagle.KINDS)
def test_heads_equal_the_plain_reference(kind: str, tmp_path: Path) -> None:
    play = test_eagle.Play(*test_eagle.build(kind, tmp_path), seed=1)
    recorder = recorders.Replaying()
    play.drafter = Incremental(play.head, Calibration(), WIDTH, recorder=recorder)
    play.draft = play.drafter.open(test_eagle.PROMPT)
    play.prefill()
    for _ in range(6):
        play.grow()
        play.grow()
        play.advance()
    assert recorder.replays > 2 * recorder.recordings


def test_texts_one_after_the_other_and_two_at_once(network: DraftNetwork) -> None:
    both, recorder = pair(network)
    Story.begun(both, 12, seed=1).go_on(3)
    gc.collect()
    known = recorder.recordings
    Story.begun(both, 12, seed=1).go_on(3)
    gc.collect()
    assert recorder.recordings == known, "the second text sits where the first one did"
    stories = [Story.begun(both, length, seed=length) for length in (5, 20)]
    for _ in range(2):
        for story in stories:
            story.go_on(1)


def test_a_text_that_grows_out_of_its_seat(
    network: DraftNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next text, which has the larger seat, begins anew."""
    monkeypatch.setattr(seats, "FIRST_SLOTS", 16)
    monkeypatch.setattr("gardener.draft.device.rows.AHEAD", 0)
    monkeypatch.setattr(steps, "LOOK", 16)
    both, _ = pair(network)
    story = Story.begun(both, 8, seed=3)
    story.go_on(12)
    (draft, _) = story.drafts
    assert isinstance(draft, IncrementalDraft)
    assert isinstance(draft._rows, RecordedRows)
    assert draft._rows._seat.slots >= 64
    del draft, story
    gc.collect()
    Story.begun(both, 9, seed=4).go_on(3)


def test_a_long_prompt_comes_in_pieces(network: DraftNetwork) -> None:
    both, _ = pair(network)
    story = Story.begun(both, 600, seed=5)
    story.ask(story.tree.root)
    story.go_on(2)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.8, seed=3),
        Sampling(temperature=0.8),
        Sampling(temperature=1.0, seed=3, top_p=0.9, top_k=20),
        Sampling(repetition_penalty=1.3, presence_penalty=0.4, logit_bias=((5, 3.0),)),
        Sampling(min_tokens=5, eos=(7, 8)),
    ],
    ids=["noise", "unknown noise", "cut", "penalties", "minimum"],
)
def test_however_the_target_picks(head: DraftNetwork, sampling: Sampling) -> None:
    both, _ = pair(head)
    Story.begun(both, 12, seed=6, sampling=sampling).go_on(4)


def test_texts_that_begin_with_another_one(network: DraftNetwork) -> None:
    both, _ = pair(network)
    story = Story.begun(both, 12, seed=7)
    story.go_on(3)
    text = [story.chance.randrange(61) for _ in range(15)]
    drafts = [
        drafter.open(text, source=(draft, 10))
        for drafter, draft in zip(both, story.drafts, strict=True)
    ]
    begun = Story(drafts, text, story.taps, seed=8)
    begun.settle([], 5)  # from the last shared token on
    begun.go_on(3)
    story.go_on(2)


def test_a_table_that_is_not_on_the_device(
    head: DraftNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FloatTable, "is_on", lambda self, device: False)
    both, recorder = pair(head)
    Story.begun(both, 12, seed=9).go_on(4)
    assert recorder.replays


def test_accepted_rows_find_their_places(
    head: DraftNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded is done twice: moves must not be."""
    made: list[int] = []

    def counted(seat: seats.Seat, given: dict[str, Tensor]) -> None:
        made.append(1)
        steps.move(seat, given)

    monkeypatch.setattr("gardener.draft.device.rows.move", counted)
    both, _ = pair(head)
    Story.begun(both, 12, seed=10).go_on(8)
    assert len(made) > 3


def test_in_types_of_16_bits(tmp_path: Path) -> None:
    """Rounding takes another way where there are other rows beside one, so much and no more."""
    test_eagle.build("induction", tmp_path)
    network = load_eagle(tmp_path / "head", tmp_path / "model", dtype="bfloat16", device="cpu")
    both, recorder = pair(network)
    mine, theirs = (Story.begun([drafter], 12, seed=12) for drafter in both)
    for _ in range(4):
        for story in (mine, theirs):
            story.ask(story.tree.root)
        for (first, *_), (second, *_) in zip(mine.last, theirs.last, strict=True):
            assert first.probability == pytest.approx(second.probability, abs=0.05)
        for story in (mine, theirs):
            story.advance()
    assert recorder.replays


@pytest.mark.parametrize("graphs", [True, False])
def test_the_factory_has_work_recorded_unless_nobody_wants_it(
    graphs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_eagle.build("eagle3", tmp_path)
    tiny.make("mixtral", tmp_path / "small")
    asked: list[bool] = []

    def recorder(device: torch.device, wanted: bool) -> recorders.Replaying | None:
        asked.append(wanted)
        return recorders.Replaying() if wanted else None

    monkeypatch.setattr("gardener.model.device.graphs.recorder", recorder)
    settings = DraftSettings(("eagle", "model"), "head", "small", dtype="float32", graphs=graphs)
    head, small = drafters(settings, tmp_path / "model", *[lambda name: tmp_path / name] * 2)
    assert asked == [graphs, False], "nobody knows beforehand which experts are read"
    for drafter, due in ((head, graphs), (small, False)):
        draft = drafter.open([1, 2, 3])
        assert isinstance(draft, IncrementalDraft)
        assert isinstance(draft._rows, RecordedRows) == due


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 4), (4, 4), (5, 16), (64, 64), (65, 256), (257, 512), (600, 768)]
)
def test_rows_are_filled_up_to_few_sizes(rows: int, size: int) -> None:
    assert steps.filled(rows) == size


@pytest.mark.parametrize(("high", "slots"), [(1, 256), (256, 256), (257, 512), (1025, 2048)])
def test_few_numbers_of_slots_are_looked_at(high: int, slots: int) -> None:
    assert steps.looked(high) == slots


# --- the stand-in itself -------------------------------------------------------------------------


def test_work_on_another_tensor_is_no_replay() -> None:
    place = {"x": torch.zeros(3)}
    graphs = Graphs(recorders.Replaying())

    def work() -> Tensor:
        return place["x"] + 1

    made = graphs.run("key", work)
    place["x"] += 1
    assert graphs.run("key", work) is made
    assert made.tolist() == [2, 2, 2]
    place["x"] = torch.zeros(3)
    with pytest.raises(AssertionError, match="but now it would be"):
        graphs.run("key", work)


def test_work_with_other_numbers_is_no_replay() -> None:
    x, number = torch.zeros(3), [1]
    graphs = Graphs(recorders.Replaying())
    graphs.run("key", lambda: x + number[0])
    number[0] = 2
    with pytest.raises(AssertionError, match="but now it would be"):
        graphs.run("key", lambda: x + number[0])


def test_work_that_waits_is_not_recorded() -> None:
    x = torch.zeros(3)
    with pytest.raises(AssertionError, match="waits for the device"):
        Graphs(recorders.Replaying()).run("key", lambda: x.max().item())


# --- devices that are slow in what others do fast ------------------------------------------------


def test_rows_get_into_slots_in_another_way_where_that_is_faster(
    head: DraftNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Incremental(head, Calibration(), WIDTH)
    told = []
    for slow in ((), ("cpu",)):
        monkeypatch.setattr(kv_cache, "_SLOW_COPIES", slow)
        if slow:
            monkeypatch.setattr(Tensor, "index_copy_", None)
        story = Story.begun([usual], 12, seed=10)
        story.go_on(6)
        told.append(story.last)
    assert told[0] == told[1]
