"""What a node asks of a stage: picks, batches, early stop, refusals, quantisation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from real_stages import decoded

from gardener.errors import RemoteError, UserError
from gardener.model.checkpoint.slices import Slice
from gardener.model.kernels.bitsandbytes_linear import quantised
from gardener.model.kv_cache import KVCache
from gardener.model.kv_slots import SlotTable
from gardener.model.quants import GROUPED
from gardener.model.tensors import dtype_of, pack, unpack, unpack_into
from gardener.protocol import messages
from gardener.protocol.messages import Open
from gardener.stages.executor import Executor
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return tiny.make("llama", folder)


def _halves(folder: Path, **options: Any) -> list[Executor]:
    return [load_stage(folder, held, **options) for held in (Slice(0, 1, 4), Slice(1, 4, 4))]


def test_greedy_text_equals_transformers(model: Any, folder: Path) -> None:
    expected = model.generate(torch.tensor([PROMPT]), max_new_tokens=20, do_sample=False)
    assert decoded(_halves(folder), PROMPT, 20) == expected[0, len(PROMPT) :].tolist()


@pytest.mark.usefixtures("model")
def test_picks_are_for_the_judged_rows_only(folder: Path) -> None:
    stage = load_stage(folder)
    batch = []
    for request in (5, 2, 9):
        stage.open(Open(request, 1, 1))
        placement = SlotTable(8, 50).place(range(8), range(-1, 7), range(8))
        batch.append(
            PlacedSegment(
                request, placement, tokens=PROMPT, pick_rows=[7, 2] if request != 9 else []
            )
        )
    done = stage.run(batch)
    assert done is not None
    assert [len(result.picks) for result in done] == [2, 2, 0]
    assert done[0].picks == done[1].picks
    whole = stage.run([PlacedSegment(2, batch[1].placement, tokens=PROMPT, pick_rows=range(8))])
    assert whole is not None
    assert (whole[0].picks[7], whole[0].picks[2]) == done[0].picks


@pytest.mark.usefixtures("model")
def test_a_batch_of_dead_jobs_stops_early(folder: Path) -> None:
    stage = load_stage(folder)
    stage.open(Open(0, 1, 1))
    table = SlotTable(8, 50)
    dead, alive = Event(), Event()
    first = table.place(range(4), range(-1, 3), range(4))
    second = table.place(range(4, 8), range(3, 7), range(4, 8))
    batch = [
        PlacedSegment(0, first, tokens=PROMPT[:4], cancelled=dead),
        PlacedSegment(0, second, tokens=PROMPT[4:], pick_rows=[3], cancelled=alive),
    ]
    dead.set()
    assert stage.run(batch) is not None  # one of two still lives
    alive.set()
    assert stage.run(batch) is None


@pytest.mark.usefixtures("model")
def test_a_stop_in_the_middle_leaves_the_stage_usable(folder: Path) -> None:
    """Rows of a stopped pass may be half written; whoever takes their slots is not disturbed."""
    stage = load_stage(folder)
    want = decoded([load_stage(folder)], PROMPT, 3)

    class AfterTwo(Event):
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 2

    table = SlotTable(8, 50)
    stage.open(Open(0, 1, 1))
    prompt = table.place(range(8), range(-1, 7), range(8))
    done = stage.run([PlacedSegment(0, prompt, tokens=PROMPT, pick_rows=[7])])
    assert done is not None
    assert done[0].picks[0] == want[0]
    wrong = table.place([8, 9], [7, 8], [8, 9])
    assert stage.run([PlacedSegment(0, wrong, tokens=[1, 2], cancelled=AfterTwo())]) is None
    table.advance([], 10)
    right = table.place([10], [7], [8])
    assert right.slots[0] == wrong.slots[0]
    done = stage.run([PlacedSegment(0, right, tokens=want[:1], pick_rows=[0])])
    assert done is not None
    assert done[0].picks[0] == want[1]


def _segment(tokens: Sequence[int] = (), hidden: torch.Tensor | None = None) -> messages.Segment:
    ids = tuple(range(len(tokens)))
    parents = tuple(each - 1 for each in ids)
    states = None if hidden is None else pack(hidden)
    return messages.Segment(0, 0, ids, parents, ids, tuple(tokens), states, ())


@pytest.mark.usefixtures("model")
def test_segments_that_cannot_be_computed_are_refused(folder: Path) -> None:
    first, last = _halves(folder)
    first.check(_segment([0, 60]))
    last.check(_segment([0, 60], torch.zeros(2, 32)))
    last.check(_segment())
    with pytest.raises(RemoteError, match="token 61 is not in a vocabulary of 61"):
        first.check(_segment([1, 61]))
    with pytest.raises(RemoteError, match="token 61 is not in a vocabulary of 61"):
        last.check(_segment([1, 61], torch.zeros(2, 32)))
    with pytest.raises(RemoteError, match="instead of tokens"):
        first.check(_segment([1], torch.zeros(1, 32)))
    with pytest.raises(RemoteError, match="not the first got tokens alone"):
        last.check(_segment([1]))
    with pytest.raises(RemoteError, match="33 wide"):
        last.check(_segment([1], torch.zeros(1, 33)))
    with pytest.raises(RemoteError, match="bfloat16"):
        last.check(_segment([1], torch.zeros(1, 32, dtype=torch.bfloat16)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_tensors_survive_the_wire(dtype: str) -> None:
    tensor = torch.randn(3, 5).to(dtype_of(dtype))
    assert torch.equal(unpack(pack(tensor)), tensor)
    assert torch.equal(unpack(pack(tensor[1:, ::2])), tensor[1:, ::2])
    assert unpack(pack(tensor[:0])).shape == (0, 5)
    with pytest.raises(RemoteError, match="expected"):
        unpack_into(torch.empty(2, 5), pack(tensor))
    with pytest.raises(UserError, match="float64"):
        dtype_of("float64")


@pytest.mark.usefixtures("model")
def test_the_cache_doubles_and_moves_nothing(folder: Path) -> None:
    cache = KVCache(2, load_stage(folder).architecture, torch.float32, torch.device("cpu"))
    rows = torch.randn(3, 2, 8)
    cache.write(1, torch.tensor([7, 0, 255]), rows, -rows)
    before = cache.nbytes
    cache.reserve(256)
    assert cache.nbytes == before
    cache.reserve(600)
    assert cache.nbytes == 4 * before
    keys, values = cache.read(1)
    assert torch.equal(keys[:, [7, 0, 255]], rows.transpose(0, 1))
    assert torch.equal(values[:, [7, 0, 255]], -rows.transpose(0, 1))
    assert not cache.read(0)[0].any()


@pytest.mark.parametrize("quant", ["int4", "int8", "llm-int8", "nf4", "fp4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantised_model_is_one_model_however_it_is_cut(
    tmp_path: Path, quant: str, dtype: str
) -> None:
    pytest.importorskip("onnxruntime" if quant in GROUPED else "bitsandbytes")
    tiny.make("biased", tmp_path, hidden_size=64, intermediate_size=128)
    whole = load_stage(tmp_path, dtype=dtype, quant=quant)
    assert whole.memory < load_stage(tmp_path, dtype="float32").memory
    cut = _halves(tmp_path, dtype=dtype, quant=quant)
    assert decoded([whole], PROMPT, 12) == decoded(cut, PROMPT, 12)


@pytest.mark.parametrize(("quant", "error"), [("llm-int8", 0.02), ("nf4", 0.15), ("fp4", 0.2)])
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 128), (70, 100)])
def test_quantised_layers_are_close(quant: str, error: float, outputs: int, inputs: int) -> None:
    pytest.importorskip("bitsandbytes")
    random = np.random.default_rng(0)
    weight, bias, x = (
        torch.from_numpy(random.standard_normal(shape, np.float32))
        for shape in ((outputs, inputs), (outputs,), (4, inputs))
    )
    got = quantised(quant)(weight, bias)(x)
    expected = torch.nn.functional.linear(x, weight, bias)
    assert (got - expected).norm() < error * expected.norm()


@pytest.mark.usefixtures("model")
def test_settings_that_cannot_be(folder: Path) -> None:
    with pytest.raises(UserError, match="device 'nope'"):
        load_stage(folder, device="nope")
    with pytest.raises(UserError, match="quant 'int3'"):
        load_stage(folder, quant="int3")
    with pytest.raises(UserError, match="dtype 'float8'"):
        load_stage(folder, dtype="float8")
    with pytest.raises(UserError, match="has 4 layers, not 5"):
        load_stage(folder, Slice(0, 5, 5))


# --- features ------------------------------------------------------------------------------------


@torch.no_grad()
def _states(model: Any, tokens: Sequence[int]) -> list[torch.Tensor]:
    """What transformers has before every layer, and after the last norm: [tokens, width] each."""
    out = model(torch.tensor([list(tokens)]), output_hidden_states=True)
    return [states[0] for states in out.hidden_states]


def _tapped(stages: Sequence[Executor], batch: Sequence[PlacedSegment]) -> list[list[torch.Tensor]]:
    """One pass through stages one behind the other: what each segment gets for its taps."""
    found: list[list[torch.Tensor]] = [[] for _ in batch]
    for stage in stages:
        done = stage.run(batch)
        assert done is not None
        for features, result in zip(found, done, strict=True):
            features += map(unpack, result.features)
        batch = [
            replace(placed, tokens=(), hidden=r.hidden)
            for placed, r in zip(batch, done, strict=True)
        ]
    return found


def _chain(
    table: SlotTable, first: int, tokens: Sequence[int], request: int, **more: Any
) -> PlacedSegment:
    """Rows of a text from position `first` on."""
    ids = range(first, first + len(tokens))
    placement = table.place(ids, [i - 1 for i in ids], ids)
    return PlacedSegment(request, placement, tokens=tokens, **more)


def _is(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    assert len(got) == len(expected)
    for have, want in zip(got, expected, strict=True):
        torch.testing.assert_close(have, want, atol=1e-4, rtol=1e-4)


CUTS = {"whole": [Slice(0, 4, 4)], "halves": [Slice(0, 1, 4), Slice(1, 4, 4)]}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_taps_are_what_transformers_has_there(model: Any, folder: Path, cut: list[Slice]) -> None:
    """At the ends of a stage, in its middle, and after the last norm, for each segment its own."""
    stages = [load_stage(folder, held) for held in cut]
    texts = {7: PROMPT, 5: [8, 60, 0], 6: [2, 7, 1, 8], 3: [9, 9]}
    taps = {7: (1, 2, 4), 5: (0, 3), 6: (), 3: (4,)}
    batch = []
    for request, text in texts.items():
        for stage in stages:
            stage.open(Open(request, 1, 1))
        judged = [0] if request == 6 else []
        table = SlotTable(len(text), 50)
        batch.append(_chain(table, 0, text, request, taps=taps[request], pick_rows=judged))
    for request, got in zip(texts, _tapped(stages, batch), strict=True):
        states = _states(model, texts[request])
        _is(got, [states[tap] for tap in taps[request]])


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_taps_of_a_text_in_pieces_and_of_branches(
    model: Any, folder: Path, cut: list[Slice]
) -> None:
    stages = [load_stage(folder, held) for held in cut]
    for stage in stages:
        stage.open(Open(7, 1, 1))
    table, taps = SlotTable(8, 50), (0, 1, 3, 4)
    tree = [(8, 7, 11), (9, 7, 12), (10, 9, 13)]  # id, parent, token
    pieces = [
        _chain(table, 0, PROMPT[:5], 7, taps=taps),
        _chain(table, 5, PROMPT[5:], 7, taps=taps, pick_rows=[2]),
        PlacedSegment(
            7,
            table.place([8, 9, 10], [7, 7, 9], [8, 8, 9]),
            tokens=[token for _, _, token in tree],
            taps=taps,
            pick_rows=[2, 0],
        ),
    ]
    first, second, branches = _tapped(stages, pieces)
    states = _states(model, PROMPT)
    _is(first, [states[tap][:5] for tap in taps])
    _is(second, [states[tap][5:] for tap in taps])
    for row, path in enumerate(([11], [12], [12, 13])):
        states = _states(model, PROMPT + path)
        _is([feature[row] for feature in branches], [states[tap][-1] for tap in taps])


@pytest.mark.usefixtures("model")
def test_taps_change_no_pick(folder: Path) -> None:
    """The last norm is taken of all rows then, but only the judged ones are picked for."""
    stage = load_stage(folder)
    picks = []
    for taps in ((), (2,), (4,), (0, 4)):
        for request, other in ((1, 2), (2, 1)):  # before one that has none, and behind it
            stage.open(Open(request, 1, 1))
            placed = _chain(SlotTable(8, 50), 0, PROMPT, request, taps=taps, pick_rows=[7, 2])
            stage.open(Open(other, 1, 1))
            plain = _chain(SlotTable(8, 50), 0, PROMPT[::-1], other, pick_rows=[4])
            done = stage.run([placed, plain])
            assert done is not None
            assert [len(result.features) for result in done] == [len(taps), 0]
            picks.append([result.picks for result in done])
    assert picks == picks[:1] * 8
    assert [len(each) for each in picks[0]] == [2, 1]


@pytest.mark.usefixtures("model")
def test_features_of_another_kind_are_refused(folder: Path) -> None:
    _, last = _halves(folder)

    def check(*features: torch.Tensor) -> None:
        packed = tuple(map(pack, features))
        hidden = pack(torch.zeros(2, 32))
        last.check(messages.Segment(0, 0, (0, 1), (-1, 0), (0, 1), (5, 6), hidden, (), packed))

    check()
    check(torch.zeros(2, 32), torch.zeros(2, 32))
    with pytest.raises(RemoteError, match=r"as float32, 33 wide; .* are float32, 32 wide"):
        check(torch.zeros(2, 33))
    with pytest.raises(RemoteError, match="features came as bfloat16, 32 wide"):
        check(torch.zeros(2, 32, dtype=torch.bfloat16))


@pytest.mark.usefixtures("model")
def test_a_pass_says_which_layer_it_is_at(folder: Path) -> None:
    stage: Any = load_stage(folder, Slice(1, 4, 4))
    seen = []

    def watched(block: Any) -> Any:
        def run(*what: Any) -> Any:
            seen.append(stage.layer)
            return block(*what)

        return run

    def head(*what: Any, outlet: Any = stage._outlet) -> Any:
        seen.append(stage.layer)
        return outlet(*what)

    stage.passes.blocks = [watched(block) for block in stage.passes.blocks]
    stage._outlet = head
    stage.open(Open(1, 1, 8))
    hidden = pack(torch.zeros(1, stage.width))
    placement = SlotTable(1, 8).place([0], [-1], [0])
    stage.run([PlacedSegment(1, placement, tokens=[1], hidden=hidden, pick_rows=[0])])
    assert seen == [1, 2, 3, 4]
