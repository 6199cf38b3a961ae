"""Stages of every family: the texts of transformers for any number of stages and any policy, as
parts that `split` wrote too; in 16 bits and quantised the same text however the model is cut."""

import random
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny
import torch
from real_stages import RealStages, Truth, decoded

from gardener.decoding.policy import POLICIES
from gardener.model.checkpoint.slices import Slice
from gardener.model.checkpoint.split import split
from gardener.model.kv_slots import SlotTable
from gardener.model.quants import GROUPED
from gardener.protocol.messages import Open
from gardener.stages.executor import Executor
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage

KINDS = ("gemma2", "gemma3", "phi3", "phi4-mini", "olmo2", "granite", "smollm3")
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7]
CUTS = {
    1: (Slice(0, 4, 4),),
    2: (Slice(0, 1, 4), Slice(1, 4, 4)),
    3: (Slice(0, 1, 4), Slice(1, 2, 4), Slice(2, 4, 4)),
}


class Made(NamedTuple):
    folder: Path
    truth: Truth


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    return Made(folder, Truth(tiny.make(request.param, folder)))


@pytest.mark.parametrize("policy", POLICIES)
def test_texts_are_those_of_transformers_for_every_cut_and_policy(made: Made, policy: str) -> None:
    expected = made.truth.after(PROMPT, 8)
    for stages, cut in CUTS.items():
        chance = random.Random(stages)
        ring = RealStages(made.folder, cut, chance)
        asked = ring.ask(PROMPT, 8, policy=policy, drafts=made.truth.drafts(chance))
        ring.finish()
        assert asked.emitted == expected


def test_parts_that_were_split_write_the_same(made: Made, tmp_path: Path) -> None:
    split(made.folder, CUTS[3], tmp_path / "parts")
    stages = [load_stage(tmp_path / "parts" / f"stage-{number}") for number in (1, 2, 3)]
    assert decoded(stages, PROMPT, 8) == made.truth.after(PROMPT, 8)


@pytest.mark.parametrize(
    ("dtype", "quant"),
    [
        ("bfloat16", "none"),
        ("float32", "int4"),
        ("bfloat16", "int8"),
        ("float32", "llm-int8"),
        ("bfloat16", "nf4"),
    ],
)
def test_a_rounded_model_is_one_model_however_it_is_cut(made: Made, dtype: str, quant: str) -> None:
    if quant != "none":
        pytest.importorskip("onnxruntime" if quant in GROUPED else "bitsandbytes")
    one, three = (
        [load_stage(made.folder, held, dtype=dtype, quant=quant) for held in CUTS[count]]
        for count in (1, 3)
    )
    assert decoded(one, PROMPT, 12) == decoded(three, PROMPT, 12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_mind_company_in_16_bits(kind: str, tmp_path: Path) -> None:
    """Bit for bit in what the layers give: a row alone, or beside fifteen others."""
    tiny.make(kind, tmp_path)
    stage = load_stage(tmp_path, Slice(0, 3, 4), dtype="bfloat16")
    alone, among = (_root_row(stage, request, rows) for request, rows in ((1, 1), (2, 16)))
    assert alone == among


def _root_row(stage: Executor, request: int, rows: int) -> bytes:
    """What comes of the root when it is computed with `rows` - 1 children of it."""
    stage.open(Open(request, 1, 100))
    table, root = SlotTable(len(PROMPT), 100), len(PROMPT) - 1
    before = list(range(root))
    placed = [table.place(before, [i - 1 for i in before], before)]
    tree = list(range(root, root + rows))
    parents = [root - 1, *[root] * (rows - 1)]
    placed.append(table.place(tree, parents, [root, *[root + 1] * (rows - 1)]))
    tokens = [PROMPT[:root], [PROMPT[root], *range(rows - 1)]]
    for placement, told in zip(placed, tokens, strict=True):
        done = stage.run([PlacedSegment(request, placement, tokens=told)])
    assert done is not None
    hidden = done[0].hidden
    assert hidden is not None
    return bytes(hidden.data)[: len(hidden.data) // rows]
