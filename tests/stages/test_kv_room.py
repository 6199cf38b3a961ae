"""How much memory a stage gives to keys and values, and that its card says so."""

from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import tiny
import torch

from gardener.errors import UserError
from gardener.model.checkpoint.slices import Slice
from gardener.model.device.named import free_memory
from gardener.protocol.cards import kv_slots
from gardener.rings.settings import RingSettings
from gardener.stages import start
from gardener.stages.executor import Executor
from gardener.stages.load import load_stage
from gardener.stages.measure import Measured
from gardener.stages.settings import NodeSettings
from gardener.stages.start import card_of, kv_room

SETTINGS = NodeSettings(
    stage=2,
    peer="127.0.0.1:1",
    listen="127.0.0.1:0",
    model="there",
    revision=None,
    stages=None,
    layers=None,
    dtype="bfloat16",
    device="cpu",
    threads=1,
    quant="none",
    patience=1.0,
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Executor:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder)
    return load_stage(folder, Slice(1, 4, 4), dtype="bfloat16")


def test_the_memory_is_what_was_given_or_half_of_what_is_free(
    stage: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "free_memory", lambda device: 6000)
    assert kv_room(stage, SETTINGS) == 3000
    assert kv_room(stage, replace(SETTINGS, beside=3)) == 1000
    assert kv_room(stage, replace(SETTINGS, kv_memory=1.5)) == 3 * 2**29
    assert kv_room(stage, replace(SETTINGS, kv_memory=1.5, beside=3)) == 2**29


@pytest.mark.parametrize(("integrated", "free"), [(0, 6000), (1, 9000)])
def test_files_that_are_cached_leave_the_memory_free_that_a_gpu_shares(
    integrated: int, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = SimpleNamespace(is_integrated=integrated)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6000, 10_000))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=9000))
    assert free_memory(torch.device("cuda")) == free
    assert free_memory(torch.device("cpu")) == 9000


@pytest.mark.parametrize("given", [0.0, -1.0, float("inf"), float("nan"), 1e12])
def test_memory_that_cannot_be_is_refused(given: float) -> None:
    with pytest.raises(UserError) as refusal:
        replace(SETTINGS, kv_memory=given)
    assert str(refusal.value) == (
        f"kv_memory is {given:g} GiB, and must be more than 0 and at most 1048576: leave it out "
        "for half of what is free"
    )


def test_some_memory_is_free_here(stage: Executor) -> None:
    assert 2**20 < kv_room(stage, SETTINGS) < 2**50


def test_the_card_says_how_many_slots_there_is_memory_for(stage: Executor) -> None:
    # Keys and values of three layers, two heads of eight numbers of four bytes.
    assert stage.kv_slot == 2 * 3 * 2 * 8 * 4
    card = card_of(stage, 2, Measured(((1, 0.1),), (), 0, 1, 0.0), 5 * stage.kv_slot + 1)
    assert (card.kv_slot, kv_slots(card)) == (384, 5)
    assert kv_slots(card_of(stage, 2, Measured(((1, 0.1),), (), 0, 1, 0.0))) is None


def test_stages_of_a_local_ring_share_the_memory() -> None:
    given = RingSettings(local=3, kv_memory=4.5).node_options()
    assert given[given.index("--kv-memory") + 1] == "4.5"
    assert given[given.index("--beside") + 1] == "3"
    assert "--kv-memory" not in RingSettings(local=3).node_options()
    with pytest.raises(UserError, match="kv_memory is 0 GiB, and must be more than 0"):
        RingSettings(local=3, kv_memory=0.0)
