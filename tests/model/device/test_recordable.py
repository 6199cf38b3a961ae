"""All that a pass on a device consists of can be recorded: tried with tensors that have no values,
so that nothing can wait for one, and nothing can come from this machine's memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from recorders import Launches

from gardener.model import linear_reader, loader
from gardener.model.architecture import Architecture
from gardener.model.attention import Scoring
from gardener.model.checkpoint.tensors import Checkpoint
from gardener.model.device.frame import COLUMNS
from gardener.model.device.graphs import Graphs
from gardener.model.device.look import FilledRows, Kernel, by_hand, efficient
from gardener.model.device.sizes import ROWS
from gardener.model.kernels import batch_invariant
from gardener.model.kernels.trial import Trial
from gardener.model.rotary import RotaryTable
from gardener.stages import device_passes
from gardener.stages.device_passes import DevicePasses
from gardener.stages.device_picks import DevicePick

DEVICE = torch.device("meta")

STATIC = [kind for kind in tiny.CONFIGS if kind not in ("mixtral", "qwen3-moe")]
"""Mixtures of experts wait for which experts there are, and are not recorded."""


def as_on_cuda(device: torch.device, dtype: torch.dtype, scoring: Scoring) -> Kernel:
    """The kernels that a pass would take on CUDA."""
    return efficient if scoring.softcap is None else partial(by_hand, scoring.softcap)


@contextmanager
def without_values(monkeypatch: pytest.MonkeyPatch, rows: tuple[int, ...]) -> Iterator[None]:
    """Checkpoints are read as tensors without values; trials find these numbers of rows good."""

    def made(name: str, stored: torch.Tensor, device: torch.device, dtype: torch.dtype) -> Any:
        return torch.empty(stored.shape, dtype=dtype, device=device)

    def read(self: Checkpoint, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.empty(shape, device=DEVICE)

    def grow(self: RotaryTable, first: int, end: int) -> None:
        size = end, self._rotated
        self._cos = torch.empty(size, dtype=self._dtype, device=self._device)
        self._sin = torch.empty_like(self._cos)

    monkeypatch.setattr(Checkpoint, "read", read)
    monkeypatch.setattr(RotaryTable, "_grow", grow)  # it copies, which takes a real device
    known = SimpleNamespace(of=lambda what, attempt: Trial(rows, 0.0))
    for module in (loader, linear_reader):
        monkeypatch.setattr(module, "in_dtype", made)
    monkeypatch.setattr(batch_invariant, "trials", lambda: known)
    monkeypatch.setattr(device_passes, "FilledRows", partial(FilledRows, choose=as_on_cuda))
    with torch.inference_mode():
        yield


def passes_of(folder: Path, dtype: torch.dtype) -> DevicePasses:
    architecture = Architecture.read(folder)
    made = loader.Loader(folder, architecture, dtype, DEVICE, "none")
    blocks = [made.block(layer, layer) for layer in range(architecture.layers)]
    return DevicePasses(
        architecture,
        blocks,
        dtype=dtype,
        device=DEVICE,
        sizes=ROWS,
        graphs=Graphs(None),
        spread=0.0,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", STATIC)
def test_all_layers_can_be_recorded(
    kind: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.make(kind, tmp_path)
    # Some layers take 16 rows as they are, some only 32 or more, some at most 64.
    with without_values(monkeypatch, (32, 64)):
        passes = passes_of(tmp_path, dtype)
        seat = passes.cache(1000)
        for size, chunks in ((16, 0), (16, 2), (128, 4)):
            frame: Any = SimpleNamespace(
                hidden=torch.empty(size, tiny.SIZES["hidden_size"], dtype=dtype, device=DEVICE),
                ints=torch.empty(size, COLUMNS, dtype=torch.int64, device=DEVICE),
            )
            piece: Any = SimpleNamespace(size=size, cache=seat, chunks=chunks, order=None)
            hidden, tap = passes._layers(frame, piece, (2,))
            for each in (hidden, tap):
                assert each.device == DEVICE
                assert (each.shape, each.dtype) == (frame.hidden.shape, dtype)


def test_the_head_can_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.make("gemma2", tmp_path)
    with without_values(monkeypatch, ROWS):
        made = loader.Loader(tmp_path, Architecture.read(tmp_path), torch.bfloat16, DEVICE, "none")
        monkeypatch.setattr("gardener.stages.device_picks.Fetch", lambda device: None)
        pick = DevicePick(made.head(), 4, Graphs(None))
        scored = pick._likeliest(torch.empty(16, 32, dtype=torch.bfloat16, device=DEVICE))
        assert scored.likeliest.shape == (16,)
        assert (scored.likeliest.device, scored.likeliest.dtype) == (DEVICE, torch.int64)


def test_a_wait_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.make("mixtral", tmp_path)
    with without_values(monkeypatch, ROWS):
        passes = passes_of(tmp_path, torch.bfloat16)
        frame: Any = SimpleNamespace(
            hidden=torch.empty(16, 32, dtype=torch.bfloat16, device=DEVICE),
            ints=torch.empty(16, COLUMNS, dtype=torch.int64, device=DEVICE),
        )
        piece: Any = SimpleNamespace(size=16, cache=passes.cache(100), chunks=0, order=None)
        with pytest.raises(RuntimeError, match="meta"):
            passes._layers(frame, piece, ())


def test_a_layer_starts_few_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes two or three microseconds even when it is replayed."""
    counts = []
    for layers in (1, 3):
        folder = tmp_path / str(layers)
        tiny.make("llama", folder, num_hidden_layers=layers)
        with without_values(monkeypatch, ROWS):
            passes = passes_of(folder, torch.bfloat16)
            frame: Any = SimpleNamespace(
                hidden=torch.empty(16, 32, dtype=torch.bfloat16, device=DEVICE),
                ints=torch.empty(16, COLUMNS, dtype=torch.int64, device=DEVICE),
            )
            piece: Any = SimpleNamespace(size=16, cache=passes.cache(1000), chunks=2, order=None)
            with Launches() as launches:
                passes._layers(frame, piece, ())
            counts.append(launches.names)
    # Besides, one copies the queries of groups; what is no view only sometimes is not counted here.
    assert len(counts[1]) - len(counts[0]) <= 2 * 24, counts[1]
