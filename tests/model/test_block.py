"""Tiny random models of every family against transformers, in float32: logits within 1e-4.

One-shot, chunked, as trees with pruning and reused slots, in 1 to 3 stages that talk in messages.
"""

import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import LlamaConfig, MistralConfig

from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.attention import Scoring, attend
from gardener.model.checkpoint.slices import Slice
from gardener.model.head import Head
from gardener.model.kv_slots import SlotTable
from gardener.model.loader import load_whole
from gardener.model.placement import Placement
from gardener.model.tensors import pack, unpack
from gardener.model.wide_attention import wide_attention
from gardener.protocol import tensors
from gardener.protocol.messages import Open
from gardener.stages.executor import Executor
from gardener.stages.forward import ComputedSegment, PlacedSegment
from gardener.stages.load import load_stage
from gardener.stages.picks import Pick

CUTS = {1: [4], 2: [1, 4], 3: [1, 3, 4]}
KINDS = [*tiny.CONFIGS]


class _Logits:
    """The outlet of a last stage in these tests: the logits of all rows, as a message."""

    def __init__(self, head: Head) -> None:
        self._head, self.nbytes = head, head.nbytes

    def __call__(
        self, hidden: torch.Tensor, batch: Sequence[PlacedSegment]
    ) -> list[ComputedSegment]:
        parts = torch.split(self._head.logits(hidden), [placed.rows for placed in batch])
        return [ComputedSegment(hidden=pack(part)) for part in parts]


class Chain:
    """Stages one behind the other; every hidden state crosses as a message."""

    def __init__(self, folder: Path, stages: int = 1, **options: Any) -> None:
        ends = CUTS[stages]
        slices = [Slice(a, b, 4) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        self.stages: list[Executor] = [load_stage(folder, held, **options) for held in slices]
        last = self.stages[-1]
        assert isinstance(last._outlet, Pick)
        last._outlet = _Logits(last._outlet._head)
        for stage in self.stages:
            stage.open(Open(0, 1, 1000))
            stage.open(Open(1, 1, 1000))

    def run(self, *parts: tuple[int, Placement, Sequence[int]]) -> list[torch.Tensor]:
        """Logits per part: (request, placement, tokens). All parts in one forward pass."""
        batch = [
            PlacedSegment(request, placement, tokens=tokens) for request, placement, tokens in parts
        ]
        results: list[ComputedSegment] = []
        for stage in self.stages:
            done = stage.run(batch)
            assert done is not None
            results = done
            batch = [
                PlacedSegment(placed.request, placed.placement, hidden=result.hidden)
                for placed, result in zip(batch, results, strict=True)
            ]
        return [unpack(_hidden(result)) for result in results]


def _hidden(result: ComputedSegment) -> tensors.Tensor:
    assert result.hidden is not None
    return result.hidden


class Request:
    """A request that grows random trees, and knows the tokens on the path to every row."""

    def __init__(self, seed: int, number: int = 0, prompt: int = 10) -> None:
        self.random = random.Random(seed)
        self.number = number
        self.tokens = [self.random.randrange(tiny.VOCAB) for _ in range(prompt)]
        self.paths = {i: self.tokens[: i + 1] for i in range(prompt)}
        self.table = SlotTable(prompt, 200)
        self.next = prompt

    def prompt(self, first: int, end: int) -> tuple[int, Placement, Sequence[int]]:
        rows = list(range(first, end))
        placement = self.table.place(rows, [i - 1 for i in rows], rows)
        return self.number, placement, self.tokens[first:end]

    def segment(self, rows: int) -> tuple[tuple[int, Placement, Sequence[int]], list[int]]:
        """Random children of the root or of what lives below it; and their ids."""
        ids, parents = [], []
        for _ in range(rows):
            below = [i for i in self.paths if i >= self.table.root and self._lives(i)]
            parent = self.random.choice(below)
            self.paths[self.next] = [*self.paths[parent], self.random.randrange(tiny.VOCAB)]
            ids.append(self.next)
            parents.append(parent)
            self.next += 1
        tokens = [self.paths[i][-1] for i in ids]
        positions = [len(self.paths[i]) - 1 for i in ids]
        return (self.number, self.table.place(ids, parents, positions), tokens), ids

    def advance(self) -> None:
        """The root moves down a random path."""
        here = [i for i in self.paths if i > self.table.root and self._lives(i)]
        root = self.random.choice(here)
        path = self.paths[root]
        settled = [i for i in here if i != root and path[: len(self.paths[i])] == self.paths[i]]
        self.table.advance(settled, root)

    def _lives(self, row: int) -> bool:
        root = self.paths[self.table.root]
        return self.paths[row][: len(root)] == root


def _assert_paths(model: Any, request: Request, ids: Sequence[int], got: torch.Tensor) -> None:
    for row, line in zip(ids, got, strict=True):
        expected = tiny.last_logits(model, request.paths[row])
        torch.testing.assert_close(line, expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    return tiny.make(request.param, folder), folder


def test_one_shot_and_chunked_equal_transformers(made: Any) -> None:
    model, folder = made
    for chunks in ([24], [7, 17], [1, 1, 22], [1] * 24):
        chain, request = Chain(folder), Request(1, prompt=24)
        first = 0
        for rows in chunks:
            (got,) = chain.run(request.prompt(first, first + rows))
            _assert_paths(model, request, range(first, first + rows), got)
            first += rows


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_trees_equal_transformers_on_every_path(made: Any, stages: int) -> None:
    """Two requests at once, trees in two segments of one pass, pruned so that slots are used
    again in random order; some passes have a single row."""
    model, folder = made
    chain = Chain(folder, stages)
    pair = [Request(stages, 0, 9), Request(stages + 10, 1, 5)]
    chain.run(*[request.prompt(0, len(request.tokens)) for request in pair])
    for turn in range(3):
        parts, ids = [], []
        for request in [*pair, pair[0]] if turn % 2 == 0 else pair[:1]:
            part, rows = request.segment(1 if turn == 1 else 3)
            parts.append(part)
            ids.append((request, rows))
        for (request, rows), got in zip(ids, chain.run(*parts), strict=True):
            _assert_paths(model, request, rows, got)
        for request in pair if turn % 2 == 0 else pair[:1]:
            request.advance()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_stay_close(tmp_path: Path, dtype: str) -> None:
    model = tiny.make("qwen3", tmp_path)
    request = Request(3)
    (got,) = Chain(tmp_path, 2, dtype=dtype).run(request.prompt(0, 10))
    expected = tiny.logits(model, request.tokens)
    assert (got.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_row_does_not_mind_company_in_16_bits(tmp_path: Path) -> None:
    """Bit for bit: the root alone, or the first of a tree of sixteen."""
    tiny.make("smollm", tmp_path, hidden_size=256, intermediate_size=1536)
    alone, among = Request(4), Request(4)
    results = []
    for request, more in ((alone, 0), (among, 15)):
        chain = Chain(tmp_path, dtype="bfloat16")
        chain.run(request.prompt(0, 9))
        prompt_end = request.prompt(9, 10)
        tree = [request.segment(more)[0]] if more else []
        results.append(chain.run(prompt_end, *tree)[0])
    assert torch.equal(*results)


def test_the_rotary_tables_of_a_long_text(tmp_path: Path) -> None:
    """Tables grow in steps; positions far out are still transformers' own."""
    model = tiny.make("llama3", tmp_path)
    request = Request(5, prompt=700)
    (got,) = Chain(tmp_path).run(request.prompt(0, 700))
    torch.testing.assert_close(got, tiny.logits(model, request.tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "supported are LlamaForCausalLM"),
        (
            {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]},
            "a Gemma 3 for pictures and text, .* take one for text alone",
        ),
        ({"quantization_config": {"quant_method": "gptq"}}, "stored quantised .gptq."),
        ({"hidden_act": "tanh"}, "hidden_act is 'tanh'"),
    ],
)
def test_foreign_models_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    config = LlamaConfig(architectures=["LlamaForCausalLM"]).to_dict() | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=what):
        Architecture.read(tmp_path)


def test_a_config_that_is_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        Architecture.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        Architecture.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"hidden_size": "x"}, r"hidden_size is 'x' \(expected int"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000 .*<= 1024"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"architectures": 5}, r"architectures is 5 \(expected array"),
        ({"quantization_config": [1]}, r"quantization_config is \[1\] \(expected object"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "x"}}, "rope_parameters is .*float"),
        ({"rope_parameters": {"rope_type": "linear"}}, "cannot be read .*factor"),
        ({"num_key_value_heads": 3}, "num_attention_heads is 4, no multiple of num_key_value_h"),
        ({"head_dim": 7}, "head_dim is 7, which must be even|head_dim"),
        ({"hidden_act": "tanh"}, "hidden_act is 'tanh'"),
        ({"layer_types": ["oak"] * 4}, "layer_types|layers of type oak"),
        ({"dtype": "oak"}, "oak"),
        ({"id2label": 5}, "items"),
    ],
    ids=str,
)
def test_a_config_that_makes_no_sense_is_named(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    tiny.make("qwen2", tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=why) as refused:
        Architecture.read(tmp_path)
    assert str(refused.value).startswith(str(file))
    assert str(refused.value).endswith("mend the file, or take another model")


@pytest.mark.parametrize(
    ("scaling", "why"),
    [
        ({"rope_type": "oak"}, "'oak' is not supported"),
        (
            {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]},
            "rotary settings make no sense|short_factor",
        ),
    ],
)
def test_a_scaling_that_makes_no_sense_is_named(
    tmp_path: Path, scaling: dict[str, Any], why: str
) -> None:
    tiny.make("llama", tmp_path)
    file = tmp_path / "config.json"
    rope = {"rope_theta": 1e4, "original_max_position_embeddings": 64, "factor": 2.0} | scaling
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_parameters": rope}))
    for load in (load_stage, partial(load_whole, dtype="float32", device="cpu")):
        with pytest.raises(UserError, match=why) as refused:
            load(tmp_path)
        assert str(refused.value).startswith(str(file))


@pytest.mark.parametrize(
    "part", [5, {"stage": 1}, {"stage": 1, "fingerprint": "a:b", "first": 2, "end": 1, "layers": 4}]
)
def test_a_split_folder_that_says_nonsense_is_named(tmp_path: Path, part: object) -> None:
    tiny.make("llama", tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"gardener": part}))
    with pytest.raises(UserError, match=r"config\.json: gardener.*: split the model anew"):
        load_stage(tmp_path)


def test_windows_are_known_per_layer() -> None:
    assert Architecture.from_config(MistralConfig(num_hidden_layers=2)).windows == (4096, 4096)
    assert Architecture.from_config(LlamaConfig(num_hidden_layers=2)).windows == (None, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wide_attention_does_not_see_where_things_are_kept(dtype: torch.dtype) -> None:
    chance = torch.Generator().manual_seed(5)
    keys, values = (torch.randn(3, 300, 64, generator=chance).to(dtype) for _ in range(2))
    q = torch.randn(16, 9, 64, generator=chance).to(dtype)
    order = torch.cat((torch.randperm(200, generator=chance), torch.arange(200, 300)))
    unseen = torch.zeros(16, 300)
    unseen[:, 200:] = -torch.inf  # what other branches of the tree keep there
    look = partial(attend, wide_attention, Scoring(8**-0.5))
    alone = look(q[:1], keys[:, :200], values[:, :200], None)
    among = look(q, keys[:, order], values[:, order], unseen)
    assert torch.equal(alone, among[:1])
